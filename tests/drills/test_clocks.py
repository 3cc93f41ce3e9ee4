"""A worker and an API whose clocks are five minutes ahead, and then behind, while people buy: everybody goes by one time."""

from datetime import datetime, timedelta

import aiohttp
import pytest

from libs.common.clock import now
from tests.shared.clocks import wrong_by
from tests.shared.custom import Blunt, Custom, shop_of
from tests.shared.market import Market

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.long("that a process goes by its database's clock is tried in every build (tests/faults/test_wrong_clocks.py)"),
    pytest.mark.timeout(3_600),
]

OFF_SECONDS = 300
WRONG = ("checkout.worker.2", "checkout.api.2", "payments.worker.2", "cart.api.2")
AS_FAR_AS_CLOCKS_MAY_BE_APART = timedelta(seconds=5)


@pytest.mark.parametrize("seconds", [OFF_SECONDS, -OFF_SECONDS])
async def test_processes_whose_clocks_are_wrong_lose_nothing_and_refuse_nobody(market: Market, seconds: int) -> None:
    wrong = wrong_by(seconds)
    await market.stack.scale(dict.fromkeys((name.removesuffix(".2") for name in WRONG), 2))
    for name in WRONG:
        await market.stack.stop_process(name)
        market.stack._parts[name]._child.environment.update(wrong)  # type: ignore[attr-defined]  # it is a HttpProcess
        await market.stack.start_process(name)
    apart = await _told(market, "cartwright_clock_apart_seconds ")
    assert sum(abs(each - seconds) < OFF_SECONDS / 2 for each in apart) == len(WRONG), "they are wrong, and say so"
    begun, api = now(), Blunt(market)
    custom = Custom(market, shop_of(market, api), f"clock{seconds:+d}")
    async with custom.comes():
        for _ in range(5):
            await custom.goes_on()
    assert api.lost == [], "who asks once has been answered"
    assert sum(await _told(market, "cartwright_http_requests_total{", 'status="401"')) == 0, "and no token was refused"
    for checkout in custom.checkouts[:: len(custom.checkouts) // 10]:
        await _is_told_in_order(market, checkout["id"], begun)
    await custom.left_all_well()
    await market.stack.scale(dict.fromkeys((name.removesuffix(".2") for name in WRONG), 1))


async def _told(market: Market, metric: str, label: str = "") -> list[float]:
    """What all processes tell by this name."""
    told: list[float] = []
    async with aiohttp.ClientSession() as session:
        for url in [each for service in market.stack.description().services.values() for each in service.ops]:
            async with session.get(f"{url}/metrics") as answer:
                lines = [line for line in (await answer.text()).splitlines() if line.startswith(metric) and label in line]
                told += [float(line.rpartition(" ")[2]) for line in lines]
    return told


async def _is_told_in_order(market: Market, checkout_id: str, begun: datetime) -> None:
    """Nothing in its story is of a time when it was not, and nothing comes before what it was caused by."""
    found: dict[str, object] = {}
    path, token = f"/v1/checkouts/{checkout_id}/timeline", await market.shop.token()
    items: list[dict[str, object]] = []

    async def told() -> bool:
        found.update((await market.api.call("checkout", "GET", path, token=token)).body)
        items[:] = found["items"]  # type: ignore[call-overload]  # it is a list
        return "payment.captured" in {item["name"] for item in items}

    await market.until(told)
    moments = [datetime.fromisoformat(str(item["at"])) for item in items]
    assert begun - AS_FAR_AS_CLOCKS_MAY_BE_APART <= min(moments)
    assert max(moments) <= now() + AS_FAR_AS_CLOCKS_MAY_BE_APART
    seen: set[object] = set()
    for item in items:
        cause = item.get("cause")
        assert not isinstance(cause, dict) or cause["name"] in seen or cause["name"] == "request", f"{item} before its cause"
        seen.add(item["name"])
