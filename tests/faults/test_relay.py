"""The relay when something is wrong: events refused, backlogs, deaths, long transactions, a broker that is away."""

import asyncio
import itertools
import os
import signal
import struct
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from deploy.local.topics import Topic, create_topics
from libs.common.clock import new_id
from libs.common.errors import MalformedError
from libs.common.messaging.envelope import parse_position
from libs.common.messaging.headers import pack
from libs.common.messaging.relay import set_aside
from libs.common.messaging.relay.cursor import LEASE_SECONDS, Cursor
from libs.common.messaging.relay.loop import TOPIC_REFUSED
from libs.common.messaging.relay.window import chunks
from libs.common.telemetry import REGISTRY
from tests.shared.toy import TOPIC, Toy, seeded

ROOT = Path(__file__).parents[2]
INSERT = """INSERT INTO outbox_event (event_id, tenant_id, topic, key, headers, payload)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bytea[], $5::bytea[], $6::bytea[])"""
WAITING = "SELECT key, state, reason FROM outbox_parked WHERE state = 'parked' ORDER BY id"

UNDECIDED = "SELECT FROM outbox_parked WHERE state IN ('replaying', 'discarding')"

MakeToy = Callable[[], Toy]


@pytest.fixture
def make_toy(admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str]) -> MakeToy:
    return lambda: Toy(admin_url, bootstrap_servers, fresh_prefix("relay"))


@pytest.fixture
async def toy(make_toy: MakeToy) -> Toy:
    toy = make_toy()
    await toy.prepare()
    return toy


class Writer:
    """Writes events with sequences that count for each key, as a service does: in order, in short transactions."""

    def __init__(self, connection: Any, topic: str = TOPIC) -> None:
        self.written: dict[bytes, int] = defaultdict(int)
        self._connection = connection
        self._topic = topic

    async def write(self, *keys: tuple[UUID, str], payload_bytes: int = 20) -> None:
        tenants = ",".join({str(tenant) for tenant, _ in keys})
        rows = []
        for tenant, name in keys:
            key = f"{tenant}:{name}".encode()
            self.written[key] += 1
            headers = pack([("ce_id", "x"), ("ce_sequence", str(self.written[key]))])
            rows.append((new_id(), tenant, self._topic, key, headers, b"x" * payload_bytes))
        await self._connection.execute(f"BEGIN; SET LOCAL cartwright.tenant_ids = '{tenants}'")
        await self._connection.execute(INSERT, *(list(column) for column in zip(*rows, strict=True)))
        await self._connection.execute("COMMIT")


@asynccontextmanager
async def _as(toy: Toy, role: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(toy.url(role))
    try:
        yield connection
    finally:
        await connection.close()


async def _delivered(toy: Toy, topic: str = TOPIC) -> tuple[dict[bytes, list[int]], list[Any]]:
    """What a consumer with watermarks makes of the topic: the sequences of each key; and every record there is."""
    consumer = AIOKafkaConsumer(bootstrap_servers=toy.settings.kafka_bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    name = toy.prefix + topic
    consumer.assign([TopicPartition(name, partition) for partition in range(6)])
    ends = await consumer.end_offsets(consumer.assignment())
    records: list[Any] = []
    while any([await consumer.position(partition) < end for partition, end in ends.items()]):
        for batch in (await consumer.getmany(timeout_ms=500)).values():
            records.extend(batch)
    await consumer.stop()
    marks: dict[int, Any] = {}
    sequences: dict[bytes, list[int]] = defaultdict(list)
    for record in records:
        headers = dict(record.headers)
        _, position = parse_position(headers["ce_relayposition"].decode())
        if position > marks.get(record.partition, (-1, -1, -1)):
            marks[record.partition] = position
            sequences[record.key].append(int(headers["ce_sequence"]))
    return sequences, records


async def _until(condition: Callable[[], Any], seconds: float = 30) -> float:
    begun = time.monotonic()
    while not await condition():
        assert time.monotonic() - begun < seconds, "it never came about"
        await asyncio.sleep(0.02)
    return time.monotonic() - begun


async def _all_published(toy: Toy) -> None:
    """Until the cursor has passed everything that is committed."""
    done = """SELECT hi IS NULL AND NOT EXISTS (SELECT FROM outbox_event WHERE NOT pg_visible_in_snapshot(txid, lo))
    FROM outbox_cursor"""
    async with _as(toy, "relay") as relay:
        await _until(lambda: relay.fetchval(done), 60)


def _unpublished_age() -> float:
    return REGISTRY.get_sample_value("cartwright_relay_unpublished_age_seconds") or 0.0


async def _limit(toy: Toy, max_bytes: int) -> None:
    """Change how large a batch the topic takes, and wait until it does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=toy.settings.kafka_bootstrap_servers)
    await admin.start()
    await admin.alter_configs(
        [ConfigResource(ConfigResourceType.TOPIC, toy.prefix + TOPIC, configs={"max.message.bytes": str(max_bytes)})]
    )
    await admin.close()
    await asyncio.sleep(1)


async def test_a_refused_event_holds_back_only_its_own_key_and_a_replay_brings_everything_in_order(toy: Toy) -> None:
    chance = seeded(int(time.time()))
    await _limit(toy, 30_000)
    tenants = [uuid4(), uuid4()]
    hot, other = (tenants[0], "hot"), (tenants[1], "other")
    keys = [hot, other, *((tenant, f"cool{number}") for tenant in tenants for number in range(8))]
    hot_key, other_key = (f"{tenant}:{name}".encode() for tenant, name in (hot, other))
    async with _as(toy, "app") as app, _as(toy, "relay") as operator:
        writer = Writer(app)

        async def write(times: int) -> None:
            for _ in range(times):
                await writer.write(*(chance.choice([hot, *keys]) for _ in range(chance.randrange(1, 60))))

        await write(10)
        good = {hot_key: writer.written[hot_key], other_key: 0}
        await writer.write(hot, payload_bytes=60_000)
        await write(10)
        good[other_key] = writer.written[other_key]
        await writer.write(other, payload_bytes=60_000)
        async with toy.relay("one"):
            await write(5)  # in later windows
            await _all_published(toy)
            sequences, _ = await _delivered(toy)
            expected = {key: [*range(1, good.get(key, count) + 1)] for key, count in writer.written.items()}
            assert sequences == expected
            waiting = await operator.fetch(WAITING)
            assert len(waiting) == sum(writer.written[key] - good[key] for key in good)
            for key in good:
                reasons = [row["reason"] for row in waiting if row["key"] == key]
                assert reasons == ["MessageSizeTooLarge", *["behind-set-aside"] * (len(reasons) - 1)]
            await _decide(toy, operator, other, hot)
            await _limit(toy, 1_000_000)
            await set_aside.replay(operator, topic=TOPIC, key=hot_key.decode(), actor="ops")
            while await operator.fetchval(f"SELECT EXISTS ({UNDECIDED} OR state = 'parked')"):
                await write(1)  # whatever is written while the relay puts the others back comes after them
            await write(3)
            await _all_published(toy)
        sequences, records = await _delivered(toy)
        actions = await operator.fetch("SELECT action, actor FROM operator_action ORDER BY at")
    expected = {key: [*range(1, count + 1)] for key, count in writer.written.items()}
    expected[other_key].remove(good[other_key] + 1)
    assert sequences == expected
    print(f"{len(records)} records for {sum(map(len, sequences.values()))} events")
    assert [row["action"] for row in actions] == ["discard-set-aside", "replay-set-aside", "replay-set-aside", "replay-set-aside"]


async def _decide(toy: Toy, operator: Any, other: tuple[UUID, str], hot: tuple[UUID, str]) -> None:
    """Discard one culprit and replay what waited behind it; replay the other too early, which changes nothing."""
    [culprit] = [row for row in await set_aside.listed(operator, tenant_id=other[0], limit=5) if row.reason != "behind-set-aside"]
    with pytest.raises(MalformedError):
        await set_aside.discard(operator, event_id=culprit.event_id, actor="ops", reason=" ")
    assert await set_aside.discard(operator, event_id=culprit.event_id, actor="ops", reason="nobody needs it") == 1
    assert await set_aside.discard(operator, event_id=culprit.event_id, actor="ops", reason="twice") == 0
    await set_aside.replay(operator, topic=TOPIC, key=culprit.key, actor="ops")
    waiting = "SELECT count(*) FROM outbox_parked WHERE state = 'parked' AND key = $1"
    before = await operator.fetchval(waiting, f"{hot[0]}:{hot[1]}".encode())
    await set_aside.replay(operator, topic=TOPIC, key=f"{hot[0]}:{hot[1]}", actor="ops")
    await _until(lambda: operator.fetchval(f"SELECT NOT EXISTS ({UNDECIDED})"))
    await _all_published(toy)
    assert await operator.fetchval(waiting, f"{hot[0]}:{hot[1]}".encode()) == before


async def test_while_one_tenant_has_200_000_events_waiting_another_tenants_event_is_among_the_first(toy: Toy) -> None:
    loud, quiet, count = uuid4(), uuid4(), 200_000
    async with _as(toy, "app") as app:
        await app.execute(f"BEGIN; SET LOCAL cartwright.tenant_ids = '{loud}'")
        await app.execute(
            """INSERT INTO outbox_event (event_id, tenant_id, topic, key, headers, payload)
            SELECT gen_random_uuid(), $1::uuid, $2, convert_to($1::uuid || ':' || n % 5000, 'UTF8'),
                convert_to('ce_sequence' || chr(10) || (n / 5000 + 1), 'UTF8'), repeat('x', 300)::bytea
            FROM generate_series(0, $3::int - 1) AS n""",
            *(loud, TOPIC, count),
            timeout=120,
        )
        await app.execute("COMMIT")
        writer = Writer(app)
        await writer.write((quiet, "early"))
        async with toy.relay("one"):
            await _until(lambda: app.fetchval("SELECT true FROM pg_stat_activity WHERE application_name = 'relay'"))
            await asyncio.sleep(1)
            await writer.write((quiet, "late"))
            committed = time.time()
            await _all_published(toy)
    sequences, records = await _delivered(toy)
    assert len(sequences) == 5_002
    assert all(found == [*range(1, len(found) + 1)] for found in sequences.values())
    assert sum(map(len, sequences.values())) == count + 2
    by_key = {record.key: record for record in records}
    early, late = by_key[f"{quiet}:early".encode()], by_key[f"{quiet}:late".encode()]
    first, last = (pick(record.timestamp for record in records if record.key != late.key) / 1000 for pick in (min, max))
    waited = late.timestamp / 1000 - committed
    print(
        f"backlog of {count} published in {last - first:.2f} s; an event inside the window left after "
        f"{early.timestamp / 1000 - first:.3f} s, one committed after it had opened waited {waited:.2f} s"
    )
    (window, ordinal), (next_window, _) = _position(early), _position(late)
    assert ordinal <= 2
    assert next_window == window + 1, "what comes after a window has opened waits for that window and for no other"


def _position(record: Any) -> tuple[int, int]:
    """A record's window, and its place in it."""
    _, window, ordinal = dict(record.headers)["ce_relayposition"].rpartition(b"/")[2].split(b".")
    return int(window), int(ordinal)


async def test_rows_that_came_with_a_window_are_read_again_at_the_same_places_by_whoever_finds_it_open(toy: Toy) -> None:
    tenants = [uuid4() for _ in range(3)]
    async with _as(toy, "app") as app, _as(toy, "app") as long, _as(toy, "relay") as relay:
        writer = Writer(app)

        async def session() -> Any:
            return relay

        async def opened(cursor: Cursor) -> list[tuple[int, int]]:
            window = await cursor.open()
            assert window is not None
            cursor.done()
            came = [(row["n"], row["id"]) for row in window.rows or ()]
            await writer.write((tenants[0], "too late"))
            heir = Cursor(relay, relay, "whoever is alive")
            await heir.lease()
            assert heir.window is not None
            assert [[(row["n"], row["id"]) for row in rows] async for rows in chunks(heir.window, session)] == [came]
            return came

        cursor = Cursor(relay, relay, "whoever is alive")
        await cursor.lease()
        assert await cursor.open() is None, "there is nothing yet"
        await long.execute(f"BEGIN; SET LOCAL cartwright.tenant_ids = '{tenants[2]}'")
        await long.execute(INSERT, [new_id()], [tenants[2]], [TOPIC], [b"slow"], [b"a\n1"], [b"{}"])
        await writer.write(*((tenant, name) for name in "abcd" for tenant in tenants[:2]), (tenants[0], "e"), (tenants[0], "f"))
        first = await opened(cursor)
        await long.execute("COMMIT")
        second = await opened(cursor)
        assert await cursor.open() is not None
        cursor.done()
        assert await cursor.open() is None, "all of it was in the last window"
    assert (len(first), len(second)) == (10, 2), "the slow one's row and what was too late for the first window"
    assert second[0][1] < first[0][1], "the slow one took its id before all others"


async def test_a_standby_takes_over_within_the_lease_of_a_killed_relay_and_at_once_from_one_that_stops(toy: Toy) -> None:
    tenant = uuid4()
    script = (
        "import asyncio, sys\nfrom tests.shared.toy import Toy\n"
        "async def main():\n    async with Toy(*sys.argv[1:4]).relay('doomed') as task:\n        await task\n"
        "asyncio.run(main())"
    )
    arguments = (toy.admin_url, toy.settings.kafka_bootstrap_servers, toy.prefix)
    async with _as(toy, "app") as app, _as(toy, "relay") as reader:
        writer = Writer(app)
        owned = "SELECT owner FROM outbox_cursor WHERE lease_until > clock_timestamp()"

        async def owned_by(name: str) -> bool:
            return bool(await reader.fetchval(owned) == name)

        doomed = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, *arguments, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        await _until(lambda: owned_by("doomed"))
        async with toy.relay("standby"):
            for number in range(200):
                await writer.write((tenant, f"k{number % 7}"))
            assert await owned_by("doomed")
            doomed.send_signal(signal.SIGKILL)
            await doomed.wait()
            await writer.write((tenant, "k0"))
            taken = await _until(lambda: owned_by("standby"), LEASE_SECONDS + 5)
            await _all_published(toy)
            async with toy.relay("third"):
                await asyncio.sleep(1.5)
                assert await owned_by("standby")
        async with toy.relay("fourth"):
            given = await _until(lambda: owned_by("fourth"), 5)
    print(f"taken over {taken:.2f} s after a kill, {given:.2f} s after a clean stop; the lease is {LEASE_SECONDS} s")
    assert given < taken
    sequences, _ = await _delivered(toy)
    assert sequences == {key: [*range(1, count + 1)] for key, count in writer.written.items()}


async def test_the_outbox_stays_small_under_load_also_beside_a_transaction_that_does_not_end(make_toy: MakeToy) -> None:
    toy = make_toy()
    await toy.prepare(slot_seconds=1)
    tenant, sizes = uuid4(), []
    async with _as(toy, "app") as app, _as(toy, "app") as long, _as(toy, "owner") as owner:
        await long.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()")
        writer, stop = Writer(app), time.monotonic() + 12
        async with toy.relay("one"):
            for number in itertools.count():
                await writer.write(*((tenant, f"k{number % 50}") for _ in range(20)))
                if number % 25 == 0:
                    sizes.append(await owner.fetchval("SELECT count(*) FROM outbox_event"))
                if time.monotonic() > stop:
                    break
            await _all_published(toy)
        await long.execute("ROLLBACK")
    written = sum(writer.written.values())
    print(f"{written} events written, at most {max(sizes)} in the outbox, {sizes[-1]} at the end")
    assert max(sizes) < written / 2
    sequences, _ = await _delivered(toy)
    assert sequences == {key: [*range(1, count + 1)] for key, count in writer.written.items()}


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
    async with proxy.serve() as address, _as(toy, "app") as app:
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
                        await asyncio.sleep(2)
                        age = _unpublished_age()
                        print(f"unpublished age while the broker was away: {age:.1f} s")
                        assert age > 2
                        proxy.away(gone=False)
                    case _:
                        pass
            await _all_published(toy)
    sequences, records = await _delivered(toy)
    assert sequences == {key: [*range(1, count + 1)] for key, count in writer.written.items()}
    print(f"{len(records)} records for 2000 events")
    assert _unpublished_age() == 0


async def test_a_topic_that_is_not_there_stops_the_relay_aloud_and_nothing_is_set_aside(toy: Toy) -> None:
    tenant, topic = uuid4(), "unborn.v1"
    async with _as(toy, "app") as app, _as(toy, "relay") as relay:
        writer = Writer(app, topic)
        await writer.write((tenant, "a"), (tenant, "a"), (tenant, "b"))
        refusals = TOPIC_REFUSED.labels(toy.prefix + topic)
        async with toy.relay("one"):

            async def refused() -> bool:
                return bool(refusals._value.get())

            print("said so after", round(await _until(refused), 1), "s")
            assert not await relay.fetch(WAITING)
            await create_topics(
                toy.settings.kafka_bootstrap_servers, [Topic(topic, "toy", partitions=6, replication=1, settings={})], toy.prefix
            )
            await _all_published(toy)
        assert not await relay.fetch(WAITING)
    sequences, _ = await _delivered(toy, topic)
    assert sorted(sequences.values()) == [[1], [1, 2]]


async def test_a_topic_that_grew_is_published_to_no_more_for_its_keys_would_change_places(toy: Toy) -> None:
    tenant, servers = uuid4(), toy.settings.kafka_bootstrap_servers
    refusals = TOPIC_REFUSED.labels(toy.prefix + TOPIC)

    async def refused() -> bool:
        return bool(refusals._value.get())

    async with _as(toy, "app") as app:
        writer = Writer(app)
        await writer.write((tenant, "a"))
        async with toy.relay("one"):
            await _all_published(toy)
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        await admin.start()
        await admin.create_partitions({toy.prefix + TOPIC: NewPartitions(7)})
        await admin.close()
        await writer.write(*((tenant, name) for name in "abcdefgh"))
        async with toy.relay("two"):
            await _until(refused)
    _, records = await _delivered(toy)
    assert [record.key for record in records] == [f"{tenant}:a".encode()]


async def test_what_was_decided_long_ago_is_forgotten_and_what_waits_never_is(toy: Toy) -> None:
    park = """INSERT INTO outbox_parked (timeline, win, n, id, event_id, tenant_id, topic, key, headers, payload, state, reason,
        detail, decided_at) SELECT 1, 1, n, n, gen_random_uuid(), gen_random_uuid(), 'toy.v1', 'key', '', '', state, '', '',
        now() - age FROM unnest($1::text[], $2::interval[]) WITH ORDINALITY AS t(state, age, n)"""
    day = timedelta(days=1)
    given = [("discarded", 31 * day), ("replayed", 31 * day), ("discarded", 29 * day), ("parked", 400 * day)]
    async with _as(toy, "owner") as owner, _as(toy, "relay") as relay:
        await owner.execute(park, *zip(*given, strict=True))
        await relay.execute("DELETE FROM outbox_parked")  # all that it may
        assert await relay.fetchval("SELECT count(*) FROM outbox_parked") == 2
        await owner.execute(park.replace("1, 1, n", "1, 2, n"), *zip(*given, strict=True))
        async with toy.relay("one"):
            await _until(lambda: relay.fetchval("SELECT count(*) = 4 FROM outbox_parked"))
        assert {row["state"] for row in await relay.fetch("SELECT state FROM outbox_parked")} == {"discarded", "parked"}


async def test_a_window_keeps_the_timeline_it_was_opened_under_so_that_a_promotion_repeats_nothing(toy: Toy) -> None:
    tenant = uuid4()
    async with _as(toy, "app") as app, _as(toy, "owner") as owner:
        writer = Writer(app)
        await writer.write((tenant, "a"))
        await owner.execute("UPDATE outbox_cursor SET hi = pg_current_snapshot(), win = win + 1, timeline = 0")
        async with toy.relay("one"):
            await _all_published(toy)
            await writer.write((tenant, "a"))
            await _all_published(toy)
    _, records = await _delivered(toy)
    positions: Sequence[Any] = [parse_position(dict(record.headers)["ce_relayposition"].decode())[1] for record in records]
    assert [position[:2] for position in positions] == [(0, 1), (1, 2)]


async def test_a_row_that_no_record_can_be_made_of_is_set_aside_and_stops_nobody(toy: Toy) -> None:
    tenant = uuid4()
    async with _as(toy, "app") as app, _as(toy, "relay") as relay:
        writer = Writer(app)
        await writer.write((tenant, "a"))
        await app.execute(f"BEGIN; SET LOCAL cartwright.tenant_ids = '{tenant}'")
        await app.execute(INSERT, [new_id()], [tenant], [TOPIC], [f"{tenant}:b".encode()], [b"[nonsense"], [b"{}"])
        await app.execute("COMMIT")
        await writer.write((tenant, "a"), (tenant, "b"))
        async with toy.relay("one"):
            await _all_published(toy)
        assert [row["reason"] for row in await relay.fetch(WAITING)] == ["UnreadableHeaders", "behind-set-aside"]
        with suppress(asyncpg.InsufficientPrivilegeError):
            await relay.execute(INSERT, [new_id()], [tenant], [TOPIC], [b"k"], [b"[]"], [b"{}"])
            pytest.fail("the relay's role must not write events")
    sequences, _ = await _delivered(toy)
    assert sequences == {f"{tenant}:a".encode(): [1, 2]}
