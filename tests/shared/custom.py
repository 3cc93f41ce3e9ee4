"""Buyers who keep coming, and what becomes of whoever asks only once."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import aiohttp

from deploy.cli.api import Api, Reply, Request
from deploy.cli.settlement import settled
from deploy.cli.shop import Shop
from services import SERVICES
from tests.shared.island import Island, Way
from tests.shared.market import Market
from tests.shared.verbs import cartwright, check

BUYERS = 4
PATIENCE_SECONDS = 240
BUSY = 500
LOST_SECONDS = 30
"""How long packets are lost."""


class Blunt(Api):
    """Asks like any client of ours, and keeps account of what a client that asks once would have lost."""

    def __init__(self, market: Market) -> None:
        super().__init__(market.api._session, market.api.stack)
        self.lost: list[str] = []
        self._took: list[tuple[float, float]] = []
        """When each request set out, and how long its answer took."""

    def p99(self, since: float, until: float) -> float:
        """What 99 of 100 requests took at most that set out in between, in seconds."""
        took = sorted(seconds for at, seconds in self._took if since <= at < until)
        return took[len(took) * 99 // 100]

    async def _send(self, request: Request) -> Reply:
        began = time.monotonic()
        try:
            reply = await super()._send(request)
            self._took.append((began, time.monotonic() - began))
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
        self._over_at: list[float] = []
        """When each was."""
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
        await self._market.until(lambda: self.bought(enough), PATIENCE_SECONDS)

    async def bought(self, count: int) -> bool:
        """Whether so many purchases are over."""
        return len(self.checkouts) >= count

    def longest_pause(self, since: float) -> float:
        """For how many seconds at most no purchase was over, since that moment of the monotonic clock."""
        moments = [since, *(each for each in self._over_at if each > since), time.monotonic()]
        return max(after - before for before, after in pairwise(moments))

    async def bears_with(self, what: str, place: Island, *ports: int, way: Way) -> float:
        """Go on while these ports are cut off for a while, and after that; tells and answers for how long nobody's was over."""
        begun, before = time.monotonic(), len(self.checkouts)
        with place.cut_off(*ports, way=way):
            await asyncio.sleep(LOST_SECONDS)
        await self.goes_on()
        pause = self.longest_pause(begun)
        print(f"{what}, {way}: {len(self.checkouts) - before} purchases, none for {pause:.1f} s at most")
        return pause

    async def _buys(self, buyer: int) -> None:
        number = 0
        while not self._over:
            number += 1
            shopper = self._shop.shopper(f"customer:{self._name}-{buyer}-{number}")
            cart_id = await self._market.cart(shopper, {f"SKU-{number % 5}": 1})
            key = f"{self._name}-{buyer}-{number}"
            started = await shopper.check_out(cart_id, key=key, method="pm_card_visa", wait_seconds=5)
            self.checkouts.append(await shopper.outcome(started, patience_seconds=PATIENCE_SECONDS))
            self._over_at.append(time.monotonic())

    async def left_all_well(self) -> None:
        """Each was served once, numbers and stock are as they must be, no invariant is broken, and nothing is parked."""
        await self.was_served_once_each()
        await self._market.numbers_have_no_gaps_and_stock_is_conserved()

        async def nothing_is_wrong() -> bool:
            return (await check(self._market)).violations == set()

        await self._market.until(nothing_is_wrong)
        for service in SERVICES:
            said = await cartwright(self._market, "parked", "list", "--service", service, "--state", "parked", "--json")
            assert (said.code, said.told["items"]) == (0, []), f"something is parked in {service}"

    async def was_served_once_each(self) -> None:
        """Each is confirmed, with one charge."""
        assert Counter(checkout["state"] for checkout in self.checkouts) == {"confirmed": len(self.checkouts)}
        ids = [checkout["id"] for checkout in self.checkouts]
        money = await settled(self._market.api, self._shop.tenant_id, ids, ids)
        assert {checkout["id"]: [checkout["total_minor"]] for checkout in self.checkouts} == dict(money.captured)
        charges = await self._market.all_charges()
        assert [len(charges[checkout_id]) for checkout_id in ids] == [1] * len(ids)
        print(f"{self._name}: {len(ids)} purchases")


def shop_of(market: Market, api: Api) -> Shop:
    """The market's shop, asked through this."""
    shop = Shop(api, market.shop.tenant_id, "", "")
    shop._client = market.shop._client
    return shop
