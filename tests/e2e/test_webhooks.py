"""The provider tells of what happened behind our back: signed, over a socket, through every process there is."""

import re
from typing import Any

import aiohttp
import pytest

from tests.shared.market import Market

pytestmark = pytest.mark.asyncio(loop_scope="session")

SETTLED = re.compile(r'^cartwright_webhooks_settled_total\{result="(\S+)"\} (\S+)$', re.MULTILINE)


async def _captured(market: Market) -> dict[str, Any]:
    """The provider's payment of an order that was just bought and paid."""
    shopper = market.shop.shopper("customer:webhooks")
    cart_id = await market.cart(shopper, {"SKU-1": 1})
    started = await shopper.check_out(cart_id, key=f"buy-{cart_id}", method="pm_card_visa", wait_seconds=20)
    checkout = await shopper.outcome(started, patience_seconds=240)
    assert checkout["state"] == "confirmed"

    async def captured() -> bool:
        return [charge["status"] for charge in await market.charges(checkout["id"])] == ["succeeded"]

    await market.until(captured)
    [charge] = await market.charges(checkout["id"])
    return charge


async def _settled(market: Market) -> dict[str, float]:
    """What became of the webhooks so far, by the workers' own count."""
    counts: dict[str, float] = {}
    async with aiohttp.ClientSession() as session:
        for url in market.api.stack.services["payments"].ops:
            async with session.get(f"{url}/metrics") as answer:
                for result, count in SETTLED.findall(await answer.text()):
                    counts[result] = counts.get(result, 0) + float(count)
    return counts


async def _payment(market: Market, payment_id: str) -> dict[str, Any]:
    token = await market.shop._client.token()
    payment: dict[str, Any] = (await market.api.call("payments", "GET", f"/v1/payments/{payment_id}", token=token)).body
    return payment


async def test_a_refund_that_somebody_made_at_the_provider_is_heard_of_read_and_booked(market: Market) -> None:
    charge = await _captured(market)
    stack, payment_id = market.api.stack, charge["metadata"]["payment_id"]
    asked = {"payment_intent": charge["id"], "amount": "40"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{stack.stripe_api_base}/v1/refunds", data=asked, headers={"Authorization": f"Bearer {stack.stripe_api_key}"}
        ) as answer,
    ):
        assert answer.status == 200, await answer.text()

    async def refunded() -> bool:
        return bool((await _payment(market, payment_id))["refunded_minor"] == 40)

    await market.until(refunded)

    async def told() -> bool:
        """It was a webhook; that is counted a moment after it was taken in."""
        return (await _settled(market)).get("observed", 0) > 0

    await market.until(told)


async def test_what_our_own_calls_did_is_told_again_by_webhook_and_nothing_is_read_for_it(market: Market) -> None:
    before = await _settled(market)
    charge = await _captured(market)

    async def told() -> bool:
        after = await _settled(market)
        return after.get("nothing-new", 0) >= before.get("nothing-new", 0) + 2  # authorized and captured

    await market.until(told)
    payment = await _payment(market, charge["metadata"]["payment_id"])
    assert (payment["state"], payment["captured_minor"]) == ("captured", charge["amount_received"])
    assert (await _settled(market)).get("observed", 0) == before.get("observed", 0)
