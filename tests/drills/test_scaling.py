"""Services scaled one by one while people buy, and a worker that is lost among others: nothing is lost, nothing happens twice."""

import aiohttp
import pytest

from deploy.local import readiness
from tests.shared.custom import PATIENCE_SECONDS, Blunt, Custom, shop_of
from tests.shared.market import Market

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _found_dead(url: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("cartwright_workers_gone_total "))


async def _counts_more(url: str, before: float) -> bool:
    return await _found_dead(url) > before


@pytest.mark.long("the two below have processes come and go as well")
async def test_services_grow_and_shrink_one_by_one_while_people_buy_and_nobody_has_to_ask_twice(market: Market) -> None:
    api = Blunt(market)
    custom = Custom(market, shop_of(market, api), "growing")
    async with custom.comes():
        await custom.goes_on()
        for kinds in (("checkout.worker", "cart.api"), ("payments.worker", "checkout.api"), ("cart.worker", "payments.api")):
            await market.stack.scale(dict.fromkeys(kinds, 3))
            service = market.stack.description().services[kinds[0].partition(".")[0]]
            assert len(service.workers) == 3
            assert [await readiness.status(f"{url}/readyz") for url in service.ops] == [readiness.OK] * len(service.ops)
            await custom.goes_on()
            await market.stack.scale(dict.fromkeys(kinds, 1))
            await custom.goes_on()
    assert market.stack.description().state == "running"
    await custom.was_served_once_each()
    assert api.lost == [], "who asks once has been answered"


@pytest.mark.long("a rolling restart of everything under load is played in every build (test_edge)")
async def test_an_api_that_is_told_to_leave_loses_no_request_of_those_who_ask_once(market: Market) -> None:
    await market.stack.scale({"checkout.api": 2, "cart.api": 2})
    api = Blunt(market)
    custom = Custom(market, shop_of(market, api), "leaving")
    async with custom.comes():
        await custom.goes_on()
        for name in ("checkout.api.2", "cart.api", "checkout.api"):
            await market.stack.stop_process(name)
            await custom.goes_on()
            await market.stack.start_process(name)
    await market.stack.scale({"checkout.api": 1, "cart.api": 1})
    await custom.was_served_once_each()
    assert api.lost == [], "who asks once has been answered"


async def test_a_worker_that_is_killed_among_two_is_missed_at_once(market: Market) -> None:
    await market.stack.scale({"checkout.worker": 2, "payments.worker": 2})
    custom = Custom(market, market.shop, "killed")
    async with custom.comes():
        await custom.goes_on()
        for service in ("checkout", "payments"):
            survivor = market.stack.description().services[service].ops[-2]
            before = await _found_dead(survivor)
            await market.stack.kill(f"{service}.worker.2")
            await market.until(lambda url=survivor, before=before: _counts_more(url, before), PATIENCE_SECONDS)  # type: ignore[misc]
            await custom.goes_on()
            await market.stack.start_process(f"{service}.worker.2")
    await market.stack.scale({"checkout.worker": 1, "payments.worker": 1})
    await custom.was_served_once_each()
