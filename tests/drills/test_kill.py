"""kill -9 in the middle of many checkouts: whatever was acknowledged happens, once.

Everything is killed in turn while 30 more buyers set out each time; with `--long` while 200 do.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from deploy.cli.api import connected
from deploy.cli.settlement import settled
from deploy.cli.shop import Shopper
from deploy.cli.supply import supply
from deploy.cli.tenants import Wish, onboarded
from deploy.local.stack import Stack
from tests.shared.market import OFFERS, Market

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHECKOUTS = 50
WORKERS = ("cart.worker", "checkout.worker", "payments.worker", "identity.worker")
SPARED = pytest.mark.long("the last test kills all workers at once")
VICTIMS = [
    *("checkout.worker", "payments.worker", "checkout.api"),
    *(pytest.param(each, marks=SPARED) for each in ("cart.worker", "identity.worker")),
]
PATIENCE_SECONDS = 240


async def _purchase(market: Market, name: str, number: int) -> dict[str, Any]:
    shopper = market.shop.shopper(f"customer:{name}-{number}")
    cart_id = await market.cart(shopper, {f"SKU-{number % 5}": 1 + number % 3})
    started = await shopper.check_out(cart_id, key=f"{name}-{number}", method="pm_card_visa", wait_seconds=5)
    finished: dict[str, Any] = await shopper.outcome(started, patience_seconds=240)
    return finished


@pytest.mark.parametrize("victim", VICTIMS)
async def test_fifty_checkouts_end_in_fifty_orders_with_one_charge_each_though(market: Market, victim: str) -> None:
    purchases = [asyncio.create_task(_purchase(market, victim, number)) for number in range(CHECKOUTS)]
    while not any(purchase.done() for purchase in purchases):
        await asyncio.sleep(0.01)
    await market.stack.kill(victim)
    unfinished = sum(not purchase.done() for purchase in purchases)
    await market.stack.start_process(victim)
    checkouts = await asyncio.gather(*purchases)
    assert unfinished > CHECKOUTS // 4
    assert Counter(checkout["state"] for checkout in checkouts) == {"confirmed": CHECKOUTS}
    ids = [checkout["id"] for checkout in checkouts]
    money = await settled(market.api, market.shop.tenant_id, ids, ids)
    charges = await market.all_charges()
    orders = Counter([order["checkout_id"] async for order in market.shop.orders()])
    assert [orders[checkout_id] for checkout_id in ids] == [1] * CHECKOUTS
    assert [len(charges[checkout_id]) for checkout_id in ids] == [1] * CHECKOUTS
    assert {checkout["id"]: [checkout["total_minor"]] for checkout in checkouts} == dict(money.captured)


async def test_order_numbers_have_no_gaps_and_stock_is_conserved(market: Market) -> None:
    await market.numbers_have_no_gaps_and_stock_is_conserved()


# --- Everything, one after the other -----------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="session")
async def doomed_market(tmp_path: Path) -> AsyncIterator[Market]:
    """A market on servers of its own, whose death hurts nobody else, with a supervisor that starts again what died."""
    stack = Stack(tmp_path, database_prefix="doomed_", supervise=True, say=print)
    async with AsyncExitStack() as open_things:
        await open_things.enter_async_context(stack)
        api = await open_things.enter_async_context(connected(stack.description(), connections=300))
        shop = (await onboarded(api, Wish.of("market"))).shop(api)
        await supply(shop, "GBP", OFFERS, print)
        yield Market(stack, api, shop)


@dataclass
class Crowd:
    """Many buyers at once, every fifth with a card that is declined."""

    market: Market
    size: int = 0
    acknowledged: dict[str, Shopper] = field(default_factory=dict)
    ended: dict[int, dict[str, Any]] = field(default_factory=dict)

    async def buy(self, number: int) -> None:
        shopper = self.market.shop.shopper(f"customer:crowd-{number}")
        cart_id = await self.market.cart(shopper, {f"SKU-{number % 5}": 1 + number % 3})
        method = "pm_card_chargeDeclined" if self.is_declined(number) else "pm_card_visa"
        started = await shopper.check_out(cart_id, key=f"crowd-{number}", method=method, wait_seconds=0)
        self.acknowledged[started["id"]] = shopper
        self.ended[number] = await shopper.outcome(started, patience_seconds=PATIENCE_SECONDS)

    def is_declined(self, number: int) -> bool:
        return number % 5 == 4

    async def sets_out(self, count: int) -> list["asyncio.Task[None]"]:
        """So many more buyers; comes back when half of them have been told that their checkout is under way."""
        enough = len(self.acknowledged) + count // 2
        wave = [asyncio.create_task(self.buy(number)) for number in range(self.size, self.size + count)]
        self.size += count
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.acknowledged) < enough:
                await asyncio.sleep(0.01)
        return wave


@pytest.mark.timeout(900)
async def test_every_acknowledged_checkout_ends_once_though_all_workers_then_kafka_then_postgres_are_killed(
    doomed_market: Market, request: pytest.FixtureRequest
) -> None:
    market = doomed_market
    crowd, wave = Crowd(market), 200 if request.config.getoption("--long") else 30
    buying: list[asyncio.Task[None]] = []
    under_way = []
    for victims in (WORKERS, ("kafka",), ("postgres",)):
        if unfinished := [buyer for buyer in buying if not buyer.done()]:
            # Whoever was killed before works again.
            await asyncio.wait(unfinished, return_when=asyncio.FIRST_COMPLETED)
        buying += await crowd.sets_out(wave)
        under_way.append(sum(not buyer.done() for buyer in buying))
        await asyncio.gather(*(market.stack.kill(victim) for victim in victims))
    await asyncio.gather(*buying)
    print(f"{under_way} of {crowd.size} were under way when the workers, Kafka and Postgres were killed")
    assert min(under_way) >= wave // 4
    found = {id_: await shopper.read_checkout(id_, wait_seconds=0) for id_, shopper in crowd.acknowledged.items()}
    assert found == {checkout["id"]: checkout for checkout in crowd.ended.values()}
    states = {number: "failed" if crowd.is_declined(number) else "confirmed" for number in range(crowd.size)}
    assert {number: checkout["state"] for number, checkout in crowd.ended.items()} == states
    bought = {each["id"]: [each["total_minor"]] for each in found.values() if each["state"] == "confirmed"}
    money = await settled(market.api, market.shop.tenant_id, found, bought)
    assert (dict(money.captured), money.pending) == (bought, set())
    assert Counter([order["checkout_id"] async for order in market.shop.orders()]) == Counter([*bought])
    await market.numbers_have_no_gaps_and_stock_is_conserved()
