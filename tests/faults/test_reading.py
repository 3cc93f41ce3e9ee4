"""Kafka as others fill it: transactions, hostile batches, and a disk that has changed what was written."""

import asyncio
import gzip
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from deploy.local.kafka.broker import EmbeddedKafka
from deploy.local.ports import spare_port
from deploy.local.state import Home
from libs.common.messaging.inbox.consumer import LAG, UNREADABLE
from libs.common.messaging.inbox.positions import MISSED
from tests.batches import GZIP, batch, produce, record
from tests.integration.conftest import drop
from tests.toy import GROUP, PARTITIONS, SERVICE, TOPIC, Toy

PATIENCE_SECONDS = 90


@pytest.fixture
async def toy(admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str]) -> AsyncIterator[Toy]:
    async with _toy(admin_url, bootstrap_servers, fresh_prefix("reading")) as toy:
        yield toy


@asynccontextmanager
async def _toy(admin_url: str, bootstrap_servers: str, prefix: str) -> AsyncIterator[Toy]:
    toy = Toy(admin_url, bootstrap_servers, prefix)
    await toy.prepare()
    yield toy
    await drop(admin_url, [toy.prefix + SERVICE])


def _bump(tenant: UUID, counter: UUID) -> dict[str, Any]:
    headers = [
        ("ce_id", str(uuid4()).encode()),
        ("ce_source", b"/x"),
        ("ce_type", b"toy.bumped"),
        ("ce_tenantid", str(tenant).encode()),
        ("ce_sequence", b"1"),
        ("ce_time", b"2026-01-01T00:00:00Z"),
        ("padding", bytes(3_000)),  # so that Kafka's index has an entry for every other batch
    ]
    return {
        "value": f'{{"counter_id":"{counter}","value":1}}'.encode(),
        "key": f"{tenant}:{counter}".encode(),
        "headers": headers,
    }


@asynccontextmanager
async def _producer(toy: Toy, **how: Any) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=toy.settings.kafka_bootstrap_servers, acks="all", **how)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def _send(producer: AIOKafkaProducer, place: TopicPartition, bumps: Sequence[dict[str, Any]]) -> int:
    """Send each in a batch of its own; answers the offset of the last."""
    for bump in bumps:
        sent = await producer.send_and_wait(place.topic, partition=place.partition, **bump)
    return int(sent.offset)


async def _until(ask: Callable[[], Any], is_so: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so(found := await ask()) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    return found


async def _applied(toy: Toy, tenant: UUID, expected: int) -> int:
    async def ask() -> int:
        return (await toy.totals([tenant]))["applied"]

    return int(await _until(ask, lambda applied: applied >= expected))


async def _rows(toy: Toy, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(toy.url("owner"))
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


def _partitions(toy: Toy) -> list[TopicPartition]:
    return [TopicPartition(toy.prefix + TOPIC, number) for number in range(PARTITIONS)]


async def test_what_was_aborted_is_never_seen_and_leaves_neither_lag_nor_an_alarm(toy: Toy) -> None:
    tenant, counters, place = uuid4(), [uuid4() for _ in range(4)], _partitions(toy)[0]
    async with toy.shell() as shell, toy.member(shell) as inbox, _producer(toy, transactional_id=toy.prefix) as producer:
        reporting = asyncio.create_task(inbox.report())
        for number, counter in enumerate(counters):
            await producer.begin_transaction()
            await _send(producer, place, [_bump(tenant, counter)] * 5)
            await (producer.commit_transaction() if number == 1 else producer.abort_transaction())
        assert await _applied(toy, tenant, 5) == 5

        async def stored() -> Any:
            return await _rows(toy, f"SELECT next_offset FROM inbox_position WHERE part = {place.partition}")

        end = 4 * (5 + 1)  # each with the marker of its end
        assert await _until(stored, lambda found: found == [(end,)]) == [(end,)]
        lag = LAG.labels(inbox.group, place.topic, place.partition)

        async def behind() -> float:
            return float(lag._value.get())

        assert await _until(behind, lambda found: found == 0) == 0
        reporting.cancel()
    missed_before = MISSED.labels(place.topic)._value.get()
    admin = AIOKafkaAdminClient(bootstrap_servers=toy.settings.kafka_bootstrap_servers)
    await admin.start()
    await admin.delete_records({place: RecordsToDelete(before_offset=end)})
    await admin.close()
    async with toy.shell() as shell, toy.member(shell), _producer(toy) as producer:
        await _send(producer, place, [_bump(tenant, counters[0])])
        assert await _applied(toy, tenant, 6) == 6
    assert MISSED.labels(place.topic)._value.get() == missed_before


HOSTILE: dict[str, bytes] = {
    "much of nothing": batch([record(value=bytes(1 << 26))], GZIP, lambda plain: gzip.compress(plain, 1)),
    "a header whose name is no text": batch([record(headers=[(b"\xff", b"")])]),
    "an offset far away": batch([record(1 << 30)]),
    "headers and nothing else": batch([record(blank=2_000_000)], GZIP, gzip.compress),
}


async def test_a_hostile_batch_is_set_aside_and_its_neighbours_are_read(toy: Toy) -> None:
    tenant, counter, places = uuid4(), uuid4(), _partitions(toy)
    poisoned, servers = places[0], toy.settings.kafka_bootstrap_servers
    async with _producer(toy) as producer:
        for made in HOSTILE.values():
            await _send(producer, poisoned, [_bump(tenant, counter)])
            assert await produce(servers, poisoned, made) == 0
        for place in places:
            await _send(producer, place, [_bump(tenant, counter)])
    alarms = UNREADABLE.labels(toy.prefix + GROUP, poisoned.topic)
    before = alarms._value.get()
    async with toy.shell() as shell, toy.member(shell):
        expected = len(HOSTILE) + len(places)
        assert await _applied(toy, tenant, expected) == expected
    assert alarms._value.get() == before + len(HOSTILE)
    refused = await _rows(toy, "SELECT state, reason, part, off, detail FROM inbox_parked ORDER BY off")
    assert [row[:4] for row in refused] == [("rejected", "unreadable-batch", 0, 2 * each + 1) for each in range(len(HOSTILE))]
    assert [row[4].partition(":")[0] for row in refused] == [f"offsets {row[3]} to {row[3]}" for row in refused]


@pytest.fixture
async def own_kafka(tmp_path: Path) -> AsyncIterator[EmbeddedKafka]:
    """A broker whose disk a test may lay hands on."""
    home = Home(tmp_path / "home")
    home.prepare()
    kafka = EmbeddedKafka(home, spare_port(), spare_port())
    await kafka.start()
    yield kafka
    await kafka.kill()


def _flip(log: bytearray, at: int) -> None:
    log[at + 80] ^= 0xFF


def _unknown_magic(log: bytearray, at: int) -> None:
    log[at + 16] = 7


def _longer_than_the_log(log: bytearray, at: int) -> None:
    struct.pack_into(">i", log, at + 8, 1 << 30)


def _somewhere_else(log: bytearray, at: int) -> None:
    struct.pack_into(">q", log, at, 1 << 40)


DAMAGES: Sequence[Callable[[bytearray, int], None]] = (_flip, _unknown_magic, _longer_than_the_log, _somewhere_else)


def _batch_at(log: bytearray, offset: int) -> int:
    at = 0
    while struct.unpack_from(">q", log, at)[0] != offset:
        at += 12 + struct.unpack_from(">i", log, at + 8)[0]
    return at


def _damage(disk: Path, place: TopicPartition, offset: int, damage: Callable[[bytearray, int], None]) -> None:
    [file] = disk.rglob(f"{place.topic}-{place.partition}/00000000000000000000.log")
    log = bytearray(file.read_bytes())
    damage(log, _batch_at(log, offset))
    file.write_bytes(log)


async def test_what_a_disk_has_damaged_is_set_aside_and_all_else_is_read(
    admin_url: str, own_kafka: EmbeddedKafka, tmp_path: Path, fresh_prefix: Callable[[str], str]
) -> None:
    tenant, counter, each, bad = uuid4(), uuid4(), 12, 3
    async with _toy(admin_url, own_kafka.bootstrap_servers, fresh_prefix("damaged")) as toy:
        places = _partitions(toy)
        async with _producer(toy) as producer:
            for place in places:
                await _send(producer, place, [_bump(tenant, counter)] * each)
        await own_kafka.stop()
        for place, damage in zip(places, DAMAGES, strict=False):
            _damage(tmp_path, place, bad, damage)
        await own_kafka.start()
        async with toy.shell() as shell, toy.member(shell), _producer(toy) as producer:
            expected = each * len(places) - len(DAMAGES)
            assert await _applied(toy, tenant, expected) == expected
            for place in places:
                await _send(producer, place, [_bump(tenant, counter)])
            assert await _applied(toy, tenant, expected + len(places)) == expected + len(places)
        refused = await _rows(toy, "SELECT state, reason, part, off FROM inbox_parked ORDER BY part")
        assert refused == [("rejected", "unreadable-batch", part, bad) for part in range(len(DAMAGES))]


async def test_a_broker_that_goes_away_in_between_is_taken_for_no_damage(
    admin_url: str, own_kafka: EmbeddedKafka, fresh_prefix: Callable[[str], str]
) -> None:
    tenant, counter = uuid4(), uuid4()
    async with _toy(admin_url, own_kafka.bootstrap_servers, fresh_prefix("away")) as toy:
        async with toy.shell() as shell, toy.member(shell):
            async with _producer(toy) as producer:
                await _send(producer, _partitions(toy)[0], [_bump(tenant, counter)] * 3)
            assert await _applied(toy, tenant, 3) == 3
            await own_kafka.kill()
            await asyncio.sleep(2)
            await own_kafka.start()
            async with _producer(toy) as producer:
                await _send(producer, _partitions(toy)[0], [_bump(tenant, counter)] * 3)
            assert await _applied(toy, tenant, 6) == 6
        assert await _rows(toy, "SELECT off FROM inbox_parked") == []
