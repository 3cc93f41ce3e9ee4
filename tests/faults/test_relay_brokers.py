"""A relay whose broker is silent, gone or back, and whose topics are not what they were."""

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from deploy.local.kafka.client import require_broker
from deploy.local.ports import spare_port
from deploy.local.topics import Topic, create_topics
from libs.common.messaging.relay.loop import TOPIC_REFUSED
from tests.faults.outbox import WAITING, Writer, all_published, connected, delivered, unpublished_age, until
from tests.shared.toy import TOPIC, Toy, command, seeded


@pytest.fixture
async def toy(make_toy: Callable[[], Toy]) -> Toy:
    toy = make_toy()
    await toy.prepare()
    return toy


class Proxy:
    """Stands between a client and the broker; can be silent, or gone."""

    def __init__(self, bootstrap_servers: str) -> None:
        server = urlsplit(f"//{bootstrap_servers}")
        self._host, self._port = str(server.hostname), int(server.port or 0)
        self._tasks: set[asyncio.Task[None]] = set()
        self.flowing = asyncio.Event()
        self._gone = False

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        self.flowing.set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        yield f"127.0.0.1:{self.port}"
        server.close()
        self.away(gone=True)

    def away(self, *, gone: bool) -> None:
        self._gone = gone
        if gone:
            for task in self._tasks:
                task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._gone:
            writer.close()
            return
        there, back = await asyncio.open_connection(self._host, self._port)
        # The broker tells its own address in its answers; ours goes in its place, so that nobody goes past us.
        told, ours = (b"127.0.0.1" + struct.pack(">i", port) for port in (self._port, self.port))
        for source, sink, old, new in ((reader, back, b"", b""), (there, writer, told, ours)):
            task = asyncio.create_task(self._pump(source, sink, old, new))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, old: bytes, new: bytes) -> None:
        try:
            while piece := await source.read(1 << 20):
                await self.flowing.wait()
                sink.write(piece.replace(old, new) if old else piece)
                await sink.drain()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            sink.close()


async def test_a_broker_that_is_silent_and_then_gone_and_then_back_loses_nothing(
    toy: Toy, admin_url: str, bootstrap_servers: str
) -> None:
    chance = seeded(int(time.time()))
    tenant = uuid4()
    proxy = Proxy(bootstrap_servers)
    async with proxy.serve() as address, connected(toy, "app") as app:
        writer = Writer(app)
        async with Toy(admin_url, address, toy.prefix).relay("one"):
            for number in range(400):
                await writer.write(*((tenant, f"k{chance.randrange(20)}") for _ in range(5)))
                match number:
                    case 100:
                        proxy.flowing.clear()
                        await asyncio.sleep(2)
                    case 150:
                        proxy.away(gone=True)
                        proxy.flowing.set()
                    case 250:
                        await until(aged)
                        print(f"unpublished age while the broker was away: {unpublished_age():.1f} s")
                        proxy.away(gone=False)
                    case _:
                        pass
            await all_published(toy)
            await until(caught_up)
    sequences, records = await delivered(toy)
    assert sequences == {key: [*range(1, count + 1)] for key, count in writer.written.items()}
    print(f"{len(records)} records for 2000 events")


async def aged() -> bool:
    """The gauge is as old as the relay's last look."""
    return unpublished_age() > 2


async def caught_up() -> bool:
    return unpublished_age() == 0


async def test_a_topic_that_is_not_there_stops_the_relay_aloud_and_nothing_is_set_aside(toy: Toy) -> None:
    tenant, topic = uuid4(), "unborn.v1"
    async with connected(toy, "app") as app, connected(toy, "relay") as relay:
        writer = Writer(app, topic)
        await writer.write((tenant, "a"), (tenant, "a"), (tenant, "b"))
        refusals = TOPIC_REFUSED.labels(toy.prefix + topic)
        async with toy.relay("one"):

            async def refused() -> bool:
                return bool(refusals._value.get())

            print("said so after", round(await until(refused), 1), "s")
            assert not await relay.fetch(WAITING)
            await create_topics(
                toy.settings.kafka_bootstrap_servers, [Topic(topic, "toy", partitions=6, replication=1, settings={})], toy.prefix
            )
            await all_published(toy)
        assert not await relay.fetch(WAITING)
    sequences, _ = await delivered(toy, topic)
    assert sorted(sequences.values()) == [[1], [1, 2]]


async def test_a_topic_that_grew_is_published_to_no_more_for_its_keys_would_change_places(toy: Toy) -> None:
    tenant, servers = uuid4(), toy.settings.kafka_bootstrap_servers
    refusals = TOPIC_REFUSED.labels(toy.prefix + TOPIC)

    async def refused() -> bool:
        return bool(refusals._value.get())

    async with connected(toy, "app") as app:
        writer = Writer(app)
        await writer.write((tenant, "a"))
        async with toy.relay("one"):
            await all_published(toy)
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        await admin.start()
        await admin.create_partitions({toy.prefix + TOPIC: NewPartitions(7)})
        await admin.close()
        await writer.write(*((tenant, name) for name in "abcdefgh"))
        async with toy.relay("two"):
            await until(refused)
    _, records = await delivered(toy)
    assert [record.key for record in records] == [f"{tenant}:a".encode()]


async def test_of_several_brokers_that_are_named_one_that_answers_is_enough(
    toy: Toy, admin_url: str, bootstrap_servers: str
) -> None:
    named = f"127.0.0.1:{spare_port()}, {bootstrap_servers},127.0.0.1:{spare_port()}"
    await require_broker(named)
    several, tenant, counter = Toy(admin_url, named, toy.prefix), uuid4(), uuid4()
    await create_topics(named, [Topic("later.v1", "toy", partitions=1, replication=1, settings={})], toy.prefix)

    async def consumed() -> bool:
        return (await toy.totals([tenant]))["applied"] == 3

    async with several.shell() as shell, several.relay("one"), several.member(shell):
        for _ in range(3):
            await shell.execute(command(tenant, counter))
        await until(consumed)
    assert await toy.totals([tenant]) == {"committed": 3, "applied": 3, "violations": 0}
