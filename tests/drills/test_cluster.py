"""A cluster, as in production: PostgreSQL with a synchronous standby, three brokers. Machines are lost one after the other."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from time import monotonic

import pytest
import pytest_asyncio

from deploy.cli.api import connected
from deploy.local.kafka.brokers import KafkaCluster
from deploy.local.kafka.listeners import NODES
from deploy.local.replicated import ReplicatedPostgres
from deploy.local.stack import Stack
from tests.shared.custom import Custom
from tests.shared.market import Market, market_in

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.long("a cluster of its own, and twenty failovers"),
    pytest.mark.timeout(3_600),
]

FAILOVERS = 20


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def market(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    stack = Stack(tmp_path_factory.mktemp("cluster"), database_prefix="cluster_", kind="cluster", say=print)
    async with AsyncExitStack() as opened:
        await opened.enter_async_context(stack)
        api = await opened.enter_async_context(connected(stack.description(), connections=100))
        yield await market_in((stack, api))


async def test_the_primary_is_killed_and_its_standby_promoted_twenty_times_and_no_order_is_lost(market: Market) -> None:
    databases = market.stack._parts["postgres"]
    assert isinstance(databases, ReplicatedPostgres)
    custom, pauses = Custom(market, market.shop, "failover"), list[float]()
    async with custom.comes():
        for _ in range(FAILOVERS):
            await custom.goes_on()
            killed, bought = monotonic(), len(custom.checkouts)
            await market.stack.kill("postgres")
            await databases.take_over()
            await market.until(lambda more=bought: custom.bought(more + 1), 600)  # type: ignore[misc]
            pauses.append(monotonic() - killed)
            await market.stack.heal()
    await custom.was_served_once_each()
    await market.numbers_have_no_gaps_and_stock_is_conserved()
    print(f"{len(custom.checkouts)} orders; the next was confirmed {min(pauses):.1f} to {max(pauses):.1f} s after each kill")


async def test_each_broker_is_killed_in_turn_and_people_go_on_buying(market: Market) -> None:
    brokers = market.stack._parts["kafka"]
    assert isinstance(brokers, KafkaCluster)
    custom = Custom(market, market.shop, "brokers")
    async with custom.comes():
        for name in NODES.values():
            await custom.goes_on()
            await brokers.nodes[name].kill()
            await custom.goes_on()
            await market.stack.heal()
    await custom.was_served_once_each()
    await market.numbers_have_no_gaps_and_stock_is_conserved()


async def test_nothing_is_confirmed_while_two_brokers_of_three_are_away_and_all_of_it_is_afterwards(
    market: Market,
) -> None:
    brokers = market.stack._parts["kafka"]
    assert isinstance(brokers, KafkaCluster)
    for name in ("kafka-2", "kafka-3"):
        await brokers.nodes[name].kill()
    shopper = market.shop.shopper("customer:waits")
    cart_id = await market.cart(shopper, {"SKU-1": 1})
    started = await shopper.check_out(cart_id, key="waits", method="pm_card_visa", wait_seconds=5)
    assert started["state"] not in {"confirmed", "failed"}
    await market.stack.heal()
    finished = await shopper.outcome(started, patience_seconds=600)
    assert finished["state"] == "confirmed"
    assert len(await market.charges(finished["id"])) == 1
