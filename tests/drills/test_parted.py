"""A cluster whose own parts do not hear each other for half a minute: nothing is lost, nothing happens twice."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import pytest_asyncio

from deploy.local.kafka.broker import EmbeddedKafka
from deploy.local.kafka.brokers import KafkaCluster
from deploy.local.kafka.cluster import Installation
from deploy.local.kafka.listeners import LISTENERS, NODES, Listeners
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.replicated import STANDBY, ReplicatedPostgres
from tests.shared.carrying import forwarded
from tests.shared.custom import LOST_SECONDS, Custom
from tests.shared.island import Island, Way, island, let_in
from tests.shared.market import Market, market_on_a_cluster

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.long(
        "a cluster of its own, parted eight times; what is silent is given up in every build (tests/faults/test_silence.py)"
    ),
    pytest.mark.timeout(3_600),
]

PARTED = "kafka-3"
UNPROVEN = "that a standby, or a broker, which the others do not hear loses no purchase"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def market(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    async with market_on_a_cluster(tmp_path_factory.mktemp("parted")) as market:
        yield market


async def test_while_primary_and_standby_do_not_hear_each_other_nothing_is_acknowledged_and_afterwards_all_goes_on(
    market: Market,
) -> None:
    databases = market.stack._parts["postgres"]
    assert isinstance(databases, ReplicatedPostgres)
    await let_in(databases._primary.admin_url)
    custom = Custom(market, market.shop, "one-disk")
    with island(UNPROVEN) as place:
        usual = databases._standby
        elsewhere = EmbeddedPostgres(market.stack.home, usual.port, name=STANDBY, settings={"listen_addresses": place.address})
        elsewhere._child.command = [*place.command, *elsewhere._child.command]
        await usual.stop()
        databases._servers[STANDBY] = elsewhere
        await databases.start()
        async with custom.comes():
            await custom.goes_on()
            for way in get_args(Way):
                pause = await custom.bears_with("the standby", place, databases._primary.port, way=way)
                assert pause > LOST_SECONDS / 2, "what is on one disk alone was acknowledged"
        await elsewhere.stop()
        databases._servers[STANDBY] = usual
        await databases.start()
    await custom.left_all_well()


class Elsewhere(EmbeddedKafka):
    """A broker on an island."""

    place: Island

    def _listeners(self) -> Listeners:
        return replace(super()._listeners(), bind=self.place.address)

    def _command(self, kafka: Installation, configuration: Path) -> list[str]:
        return [*self.place.command, *super()._command(kafka, configuration)]


@asynccontextmanager
async def _moved(market: Market, brokers: KafkaCluster, place: Island) -> AsyncIterator[None]:
    """One of the brokers, on the island; it is reached under its usual address for as long as the island is."""
    usual, ports = brokers.nodes[PARTED], {f"kafka{each}": market.stack._ports[PARTED + each] for each in LISTENERS}
    elsewhere = Elsewhere(
        market.stack.home, ports, access=usual._access, name=PARTED, node=usual._node, voters=usual._voters, tls=usual._tls
    )
    elsewhere.place = place
    await usual.stop()
    async with forwarded(place.address, *ports.values()):
        await elsewhere.start()
        yield
        await elsewhere.stop()
    await usual.start()


async def test_a_broker_that_does_not_reach_the_others_or_is_not_reached_loses_no_event_and_doubles_none(market: Market) -> None:
    brokers = market.stack._parts["kafka"]
    assert isinstance(brokers, KafkaCluster)
    custom, ports = Custom(market, market.shop, "parted"), market.stack._ports
    others = [ports[node + each] for node in NODES.values() if node != PARTED for each in LISTENERS]
    own = [ports[PARTED + each] for each in LISTENERS]
    with island(UNPROVEN) as place:
        async with _moved(market, brokers, place), custom.comes():
            await custom.goes_on()
            for way in get_args(Way):
                await custom.bears_with(f"{PARTED} and what it asks of the others", place, *others, way=way)
            await custom.bears_with(f"what others ask of {PARTED}", place, *own, way="both ways")
            await custom.bears_with(f"{PARTED} and everybody", place, *own, *others, way="both ways")
    await custom.left_all_well()
