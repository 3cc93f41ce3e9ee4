"""Services scaled one by one while people buy, and a worker that is lost among others: nothing is lost, nothing happens twice."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from deploy.cli.api import Api, Reply, Request
from deploy.cli.settlement import settled
from deploy.cli.shop import Shop
from deploy.local import readiness
from tests.shared.market import Market

pytestmark = pytest.mark.asyncio(loop_scope="session")

BUYERS = 4
PATIENCE_SECONDS = 240
BUSY = 500


class Blunt(Api):
    """Asks like any client of ours, and keeps account of what a client that asks once would have lost."""

    def __init__(self, market: Market) -> None:
        super().__init__(market.api._session, market.api.stack)
        self.lost: list[str] = []

    async def _send(self, request: Request) -> Reply:
        try:
            reply = await super()._send(request)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.lost.append(f"{request.method} {request.url}: {error!r}")
            raise
        if reply.status >= BUSY:
            self.lost.append(f"{request.method} {request.url}: {reply.status} {reply.body}")
        return reply


class Custom:
    """A few buyers, one purchase after the other each, for as long as they are wanted."""

    def __init__(self, market: Market, shop: Shop, name: str) -> None:
        self._market, self._shop, self._name = market, shop, name
        self.checkouts: list[dict[str, Any]] = []
        self._over = False

    @asynccontextmanager
    async def comes(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for number in range(BUYERS):
                group.create_task(self._buys(number))
            try:
                yield
                await self.goes_on()
            finally:
                self._over = True

    async def goes_on(self) -> None:
        """Everybody has bought something that set out after now."""
        enough = len(self.checkouts) + 3 * BUYERS
        await self._market.until(lambda: self._bought(enough), PATIENCE_SECONDS)

    async def _bought(self, count: int) -> bool:
        return len(self.checkouts) >= count

    async def _buys(self, buyer: int) -> None:
        number = 0
        while not self._over:
            number += 1
            shopper = self._shop.shopper(f"customer:{self._name}-{buyer}-{number}")
            cart_id = await self._market.cart(shopper, {f"SKU-{number % 5}": 1})
            key = f"{self._name}-{buyer}-{number}"
            started = await shopper.check_out(cart_id, key=key, method="pm_card_visa", wait_seconds=5)
            self.checkouts.append(await shopper.outcome(started, patience_seconds=PATIENCE_SECONDS))

    async def was_served_once_each(self) -> None:
        """Each is confirmed, with one charge, and nothing is parked."""
        assert Counter(checkout["state"] for checkout in self.checkouts) == {"confirmed": len(self.checkouts)}
        ids = [checkout["id"] for checkout in self.checkouts]
        money = await settled(self._market.api, self._shop.tenant_id, ids, ids)
        assert {checkout["id"]: [checkout["total_minor"]] for checkout in self.checkouts} == dict(money.captured)
        charges = await self._market.all_charges()
        assert [len(charges[checkout_id]) for checkout_id in ids] == [1] * len(ids)


def _shop(market: Market, api: Api) -> Shop:
    shop = Shop(api, market.shop.tenant_id, "", "")
    shop._client = market.shop._client
    return shop


async def _found_dead(url: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("cartwright_workers_gone_total "))


async def _counts_more(url: str, before: float) -> bool:
    return await _found_dead(url) > before


async def test_services_grow_and_shrink_one_by_one_while_people_buy_and_nobody_has_to_ask_twice(market: Market) -> None:
    api = Blunt(market)
    custom = Custom(market, _shop(market, api), "growing")
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


async def test_an_api_that_is_told_to_leave_loses_no_request_of_those_who_ask_once(market: Market) -> None:
    await market.stack.scale({"checkout.api": 2, "cart.api": 2})
    api = Blunt(market)
    custom = Custom(market, _shop(market, api), "leaving")
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
