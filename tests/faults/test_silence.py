"""A network that goes silent: packets are lost, nothing is refused, and no connection is closed by anybody."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from deploy.local.processes import dying_with_parent
from libs.common.database import Database
from libs.common.messaging.broker import Broker
from libs.common.messaging.hints import Hints
from libs.common.messaging.peers import Peers
from libs.common.messaging.shell import Shell
from tests.faults.outbox import ROOT, MakeToy, all_published, until
from tests.shared.island import Island, Way, island, let_in, mute
from tests.shared.toy import Toy, command

PATIENCE_SECONDS = 150
"""Far more than silence may last, and far less than TCP waits by itself: a quarter of an hour, or for ever."""
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE client_addr = $1::text::inet"


@asynccontextmanager
async def working(toy: Toy, name: str) -> AsyncIterator[Shell]:
    """What a worker consists of: a pool, hints and peers, a relay, a consumer."""
    hints = Hints(toy.listening_url, peers=Peers("toy"))
    await hints.start()
    async with toy.shell() as shell, toy.relay(name), toy.member(shell):
        try:
            yield shell
        finally:
            await hints.close()


async def _work(*arguments: str) -> None:
    """The life of the worker on the island."""
    async with working(Toy(*arguments), "on the island"):
        await asyncio.Event().wait()


@asynccontextmanager
async def _on(place: Island, toy: Toy) -> AsyncIterator[None]:
    script = "import asyncio, sys; from tests.faults.test_silence import _work; asyncio.run(_work(*sys.argv[1:]))"
    arguments = (toy.admin_url, toy.settings.kafka_bootstrap_servers, toy.prefix)
    process = await asyncio.create_subprocess_exec(
        *(*place.command, *dying_with_parent("KILL"), sys.executable, "-c", script, *arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield
        assert process.returncode is None, "it goes on"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(
    "way",
    [
        "both ways",
        pytest.param("there", marks=pytest.mark.long("both ways at once are played in every build")),
        pytest.param("back", marks=pytest.mark.long("both ways at once are played in every build")),
    ],
)
async def test_what_is_cut_off_in_silence_is_given_up_by_both_sides_and_goes_on_when_it_is_over(
    make_toy: MakeToy, way: Way
) -> None:
    toy = make_toy()
    await toy.prepare()
    tenant, counters = uuid4(), [uuid4() for _ in range(7)]
    database, broker = (_port(each) for each in (toy.admin_url, f"//{toy.settings.kafka_bootstrap_servers}"))
    await let_in(toy.admin_url)
    with island("what a network that goes silent leaves behind") as place:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(_on(place, toy))
            admin: asyncpg.Connection = await asyncpg.connect(toy.admin_url)
            stack.push_async_callback(admin.close)

            async def sessions() -> int:
                return int(await admin.fetchval(SESSIONS, place.address))

            async def at_work() -> bool:
                return place.connections(database) > 4 and place.connections(broker) > 1

            await until(at_work, PATIENCE_SECONDS)
            shell = await stack.enter_async_context(working(toy, "ashore"))

            async def bump() -> None:
                for counter in counters:
                    await shell.execute(command(tenant, counter))

            for port in (database, broker):
                await bump()
                with place.cut_off(port, way=way):
                    await bump()
                    ours = await until(lambda port=port: _is(place.connections(port) == 0), PATIENCE_SECONDS)  # type: ignore[misc]
                    if port == database:
                        theirs = await until(lambda: _none(sessions), PATIENCE_SECONDS)
                        print(f"given up after {ours:.1f} s, and by the server {theirs:.1f} s later")
                    await all_published(toy)
                await bump()
                await until(at_work, PATIENCE_SECONDS)

            async def all_applied() -> bool:
                totals = await toy.totals([tenant])
                return totals["applied"] == totals["committed"]

            await until(all_applied, PATIENCE_SECONDS)
            assert (await toy.totals([tenant]))["violations"] == 0


async def test_a_server_that_neither_takes_nor_refuses_a_connection_keeps_nobody_from_the_next(make_toy: MakeToy) -> None:
    toy = make_toy()
    await toy.prepare()
    with mute() as port:
        url = toy.url("app").replace("@", f"@127.0.0.1:{port},", 1)
        database = await Database.connect(url, application="toy", size=1)
        async with database.transaction([uuid4()]) as connection:
            assert await connection.fetchval("SELECT 1") == 1
        await database.close()
        hints = Hints(url)
        await hints.start()
        await until(lambda: _is(hints.hears), PATIENCE_SECONDS)
        await hints.close()
        several = Toy(toy.admin_url, f"127.0.0.1:{port},{toy.settings.kafka_bootstrap_servers}", toy.prefix)
        # Each asks the servers in an order that is by chance.
        for producer in await asyncio.gather(*(Broker(several.settings).producer() for _ in range(8))):
            await producer.stop()


async def _is(value: bool) -> bool:
    return value


async def _none(count: Callable[[], Awaitable[int]]) -> bool:
    return not await count()


def _port(url: str) -> int:
    port = urlsplit(url.partition(",")[0]).port
    assert port is not None
    return port
