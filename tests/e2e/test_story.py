"""Every order explains itself: the timeline of a purchase, as it is told across the four services."""

import pytest

from deploy.cli.timeline import lines, story
from tests.e2e.conftest import Market

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_try(market: Market) -> None:
    shopper = market.shop.shopper("customer:story")
    cart_id = await market.cart(shopper, {"SKU-0": 2})
    started = await shopper.check_out(cart_id, key="story", method="pm_card_visa", wait_seconds=20)
    checkout = await shopper.outcome(started, patience_seconds=60)

    async def captured() -> bool:
        return bool((await market.shop.order(checkout["order_id"]))["payment_state"] == "captured")

    await market.until(captured)
    await market.shop.refund(checkout["order_id"], key="r", lines={"1": 1}, reason="came back")
    import asyncio
    await asyncio.sleep(3)
    found = await story(market.api, [market.shop], checkout["order_id"])
    print("\n".join(lines(found)))
    from deploy.cli.repair import REBUILD_SECONDS
    from deploy.cli.tenants import operator
    url = f"{market.api.stack.services['checkout'].ops[-1]}/ops/projections/timeline/rebuild"
    print((await market.api.ask(url, "POST", token=await operator(market.api).token(), seconds=60)).body)
    raise AssertionError
