"""A cluster, as in production: PostgreSQL with a synchronous standby, three brokers. Machines are lost one after the other."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Coroutine
from time import monotonic
from typing import Any

import pytest
import pytest_asyncio

from deploy.local.kafka.brokers import KafkaCluster
from deploy.local.kafka.listeners import NODES
from deploy.local.ports import HOST
from deploy.local.replicated import ReplicatedPostgres
from tests.shared.custom import Custom
from tests.shared.market import Market, market_on_a_cluster

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.long("a cluster of its own, and twenty failovers"),
    pytest.mark.timeout(3_600),
]

FAILOVERS = 20


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def market(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    async with market_on_a_cluster(tmp_path_factory.mktemp("cluster")) as market:
        yield market


async def test_brokers_speak_by_tls_with_each_other_and_with_whoever_has_credentials(market: Market) -> None:
    sasl, ports = market.stack.description().kafka_sasl, market.stack._ports
    assert sasl
    assert sasl.certificate
    doors = [ports[f"{node}{listener}"] for node in NODES.values() for listener in (".sasl", ".controller")]
    shown = {await asyncio.to_thread(ssl.get_server_certificate, (HOST, door)) for door in doors}
    assert shown == {sasl.certificate.read_text()}


async def test_the_primary_is_killed_and_its_standby_promoted_twenty_times_and_no_order_is_lost(market: Market) -> None:
    databases = market.stack._parts["postgres"]
    assert isinstance(databases, ReplicatedPostgres)
    custom, pauses = Custom(market, market.shop, "failover"), list[float]()

    async def fail_over() -> None:
        await market.stack.kill("postgres")
        await databases.take_over()

    async with custom.comes():
        for _ in range(FAILOVERS):
            await custom.goes_on()
            pauses.append(await _until_the_next_order(market, custom, fail_over()))
            await market.stack.heal()
    await custom.was_served_once_each()
    await market.numbers_have_no_gaps_and_stock_is_conserved()
    _tell(custom, pauses)


async def test_each_broker_is_killed_in_turn_and_people_go_on_buying(market: Market) -> None:
    brokers = market.stack._parts["kafka"]
    assert isinstance(brokers, KafkaCluster)
    custom, pauses = Custom(market, market.shop, "brokers"), list[float]()
    async with custom.comes():
        for name in NODES.values():
            await custom.goes_on()
            pauses.append(await _until_the_next_order(market, custom, brokers.nodes[name].kill()))
            await custom.goes_on()
            await market.stack.heal()
    await custom.was_served_once_each()
    await market.numbers_have_no_gaps_and_stock_is_conserved()
    _tell(custom, pauses)


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


async def _until_the_next_order(market: Market, custom: Custom, loss: Coroutine[Any, Any, None]) -> float:
    """How long nobody's order was confirmed, in seconds, the loss itself included."""
    began, bought = monotonic(), len(custom.checkouts)
    await loss
    await market.until(lambda: custom.bought(bought + 1), 600)
    return monotonic() - began


def _tell(custom: Custom, pauses: list[float]) -> None:
    print(f"{len(custom.checkouts)} orders; the next was confirmed {min(pauses):.1f} to {max(pauses):.1f} s after each kill")
