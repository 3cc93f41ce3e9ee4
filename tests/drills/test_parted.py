"""A cluster whose own parts do not hear each other for half a minute: nothing is lost, nothing happens twice."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import get_args

import pytest
import pytest_asyncio

from deploy.cli.api import connected
from deploy.local.kafka.brokers import KafkaCluster
from deploy.local.kafka.cluster import java_environment, write_cluster
from deploy.local.kafka.install import installed
from deploy.local.kafka.listeners import LISTENERS, NODES, listeners
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.processes import Child, dying_with_parent
from deploy.local.replicated import STANDBY, ReplicatedPostgres
from deploy.local.stack import Stack
from tests.shared.carrying import forwarded
from tests.shared.custom import Custom
from tests.shared.island import Island, Way, island, let_in
from tests.shared.market import Market, market_in

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.long(
        "a cluster of its own, parted six times; what is silent is given up in every build (tests/faults/test_silence.py)"
    ),
    pytest.mark.timeout(3_600),
]

LOST_SECONDS = 30
PARTED = "kafka-3"
UNPROVEN = "that a standby, or a broker, which the others do not hear loses no purchase"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def market(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    stack = Stack(tmp_path_factory.mktemp("parted"), database_prefix="parted_", kind="cluster", say=print)
    async with AsyncExitStack() as opened:
        await opened.enter_async_context(stack)
        api = await opened.enter_async_context(connected(stack.description(), connections=100))
        yield await market_in((stack, api))


async def _parts_with(custom: Custom, place: Island, what: str, ports: list[int], way: Way) -> float:
    """Have these ports be out of reach for a while; answers for how long nobody's purchase was over."""
    begun, before = time.monotonic(), len(custom.checkouts)
    with place.cut_off(*ports, way=way):
        await asyncio.sleep(LOST_SECONDS)
    await custom.goes_on()
    pause = custom.longest_pause(begun)
    print(f"{what}, {way}: {len(custom.checkouts) - before} purchases, none for {pause:.1f} s at most")
    return pause


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
                pause = await _parts_with(custom, place, "the standby", [databases._primary.port], way)
                assert pause > LOST_SECONDS / 2, "what is on one disk alone was acknowledged"
        await elsewhere.stop()
        databases._servers[STANDBY] = usual
        await databases.start()
    await custom.left_all_well()


@asynccontextmanager
async def _moved(market: Market, brokers: KafkaCluster, place: Island) -> AsyncIterator[None]:
    """One of the brokers, on the island; it is reached under its usual address for as long as the island is."""
    node, ports = brokers.nodes[PARTED], {f"kafka{each}": market.stack._ports[PARTED + each] for each in LISTENERS}
    await node.stop()
    listening = replace(
        listeners(node._home, ports, node._access),
        node=node._node,
        voters=node._voters,
        tls=node._tls,
        bind=place.address,
    )
    kafka = installed()
    command = kafka.broker(write_cluster(kafka, node._home.path / PARTED, listening))
    node._child = Child(
        PARTED,
        [*place.command, *dying_with_parent("TERM"), *command],
        environment=java_environment(),
        log=node._home.log(PARTED),
    )
    async with forwarded(place.address, *ports.values()):
        await node._child.start()
        await node._until_ready(node._child)
        yield
        await node.stop()
    await node.start()


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
                await _parts_with(custom, place, f"{PARTED} and what it asks of the others", others, way)
            await _parts_with(custom, place, f"what others ask of {PARTED}", own, "both ways")
            await _parts_with(custom, place, f"{PARTED} and everybody", own + others, "both ways")
    await custom.left_all_well()
