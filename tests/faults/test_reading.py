"""Kafka as others fill it: transactions, hostile batches, and a disk that has changed what was written."""

import asyncio
import gzip
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from deploy.local.kafka.broker import EmbeddedKafka
from libs.common.messaging.inbox.group import UNREADABLE
from libs.common.messaging.inbox.member import LAG
from libs.common.messaging.inbox.positions import MISSED
from libs.common.messaging.reading import Consumer
from tests.shared.batches import GZIP, batch, produce, record
from tests.shared.feeding import applied, bump, own_kafka, partitions, producer_at, rows, send, toy_at, until
from tests.shared.toy import GROUP, Toy

__all__ = ["own_kafka"]


@pytest.fixture
async def toy(admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str]) -> AsyncIterator[Toy]:
    async with toy_at(admin_url, bootstrap_servers, fresh_prefix("reading")) as toy:
        yield toy


async def test_what_was_aborted_is_never_seen_and_leaves_neither_lag_nor_an_alarm(toy: Toy) -> None:
    tenant, counters, place = uuid4(), [uuid4() for _ in range(4)], partitions(toy)[0]
    async with toy.shell() as shell, toy.member(shell) as inbox, producer_at(toy, transactional_id=toy.prefix) as producer:
        reporting = asyncio.create_task(inbox.report())
        for number, counter in enumerate(counters):
            await producer.begin_transaction()
            await send(producer, place, [bump(tenant, counter)] * 5)
            await (producer.commit_transaction() if number == 1 else producer.abort_transaction())
        assert await applied(toy, tenant, 5) == 5

        async def stored() -> Any:
            return await rows(toy, f"SELECT next_offset FROM inbox_position WHERE part = {place.partition}")

        end = 4 * (5 + 1)  # each with the marker of its end
        assert await until(stored, lambda found: found == [(end,)]) == [(end,)]
        lag = LAG.labels(inbox.group, place.topic, place.partition)

        async def behind() -> float:
            return float(lag._value.get())

        assert await until(behind, lambda found: found == 0) == 0
        reporting.cancel()
    missed_before = MISSED.labels(place.topic)._value.get()
    admin = AIOKafkaAdminClient(bootstrap_servers=toy.settings.kafka_bootstrap_servers)
    await admin.start()
    await admin.delete_records({place: RecordsToDelete(before_offset=end)})
    await admin.close()
    async with toy.shell() as shell, toy.member(shell), producer_at(toy) as producer:
        await send(producer, place, [bump(tenant, counters[0])])
        assert await applied(toy, tenant, 6) == 6
    assert MISSED.labels(place.topic)._value.get() == missed_before


async def test_a_log_that_grows_and_is_read_while_it_is_asked_for_its_end_is_the_log_that_it_was(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, counter, place, count = uuid4(), uuid4(), partitions(toy)[0], 1
    async with toy.shell() as shell, toy.member(shell) as inbox, producer_at(toy) as producer:
        await send(producer, place, [bump(tenant, counter)])
        assert await applied(toy, tenant, count) == count
        stored = inbox.stored[0]
        consumer = stored._connected()
        asked = consumer.end_offsets

        async def and_then_it_goes_on(places: Any) -> Any:
            nonlocal count
            ends, count = await asked(places), count + 1
            await send(producer, place, [bump(tenant, counter)])
            assert await applied(toy, tenant, count) == count
            return ends

        monkeypatch.setattr(consumer, "end_offsets", and_then_it_goes_on)
        _, differing = await stored.take_over(consumer, [place])
        assert differing == {}
        assert {each["state"] for each in await stored.listing()} == {"known-log"}


HOSTILE: dict[str, bytes] = {
    "much of nothing": batch([record(value=bytes(1 << 26))], GZIP, lambda plain: gzip.compress(plain, 1)),
    "a header whose name is no text": batch([record(headers=[(b"\xff", b"")])]),
    "an offset far away": batch([record(1 << 30)]),
    "headers and nothing else": batch([record(blank=2_000_000)], GZIP, gzip.compress),
}


async def test_a_hostile_batch_is_set_aside_and_its_neighbours_are_read(toy: Toy) -> None:
    tenant, counter, places = uuid4(), uuid4(), partitions(toy)
    poisoned, servers = places[0], toy.settings.kafka_bootstrap_servers
    async with producer_at(toy) as producer:
        for made in HOSTILE.values():
            await send(producer, poisoned, [bump(tenant, counter)])
            assert await produce(servers, poisoned, made) == 0
        for place in places:
            await send(producer, place, [bump(tenant, counter)])
    alarms = UNREADABLE.labels(toy.prefix + GROUP, poisoned.topic)
    before = alarms._value.get()
    async with toy.shell() as shell, toy.member(shell):
        expected = len(HOSTILE) + len(places)
        assert await applied(toy, tenant, expected) == expected
    assert alarms._value.get() == before + len(HOSTILE)
    refused = await rows(toy, "SELECT state, reason, part, off, detail FROM inbox_parked ORDER BY off")
    assert [row[:4] for row in refused] == [("rejected", "unreadable-batch", 0, 2 * each + 1) for each in range(len(HOSTILE))]
    assert [row[4].partition(":")[0] for row in refused] == [f"offsets {row[3]} to {row[3]}" for row in refused]


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
    async with toy_at(admin_url, own_kafka.bootstrap_servers, fresh_prefix("damaged")) as toy:
        places = partitions(toy)
        async with producer_at(toy) as producer:
            for place in places:
                await send(producer, place, [bump(tenant, counter)] * each)
        await own_kafka.stop()
        for place, damage in zip(places, DAMAGES, strict=False):
            _damage(tmp_path, place, bad, damage)
        await own_kafka.start()
        async with toy.shell() as shell, toy.member(shell), producer_at(toy) as producer:
            expected = each * len(places) - len(DAMAGES)
            assert await applied(toy, tenant, expected) == expected
            for place in places:
                await send(producer, place, [bump(tenant, counter)])
            assert await applied(toy, tenant, expected + len(places)) == expected + len(places)
        refused = await rows(toy, "SELECT state, reason, part, off FROM inbox_parked ORDER BY part")
        assert refused == [("rejected", "unreadable-batch", part, bad) for part in range(len(DAMAGES))]


async def test_a_broker_that_goes_away_in_between_is_taken_for_no_damage(
    admin_url: str, own_kafka: EmbeddedKafka, fresh_prefix: Callable[[str], str]
) -> None:
    tenant, counter = uuid4(), uuid4()
    async with toy_at(admin_url, own_kafka.bootstrap_servers, fresh_prefix("away")) as toy:
        async with toy.shell() as shell, toy.member(shell):
            async with producer_at(toy) as producer:
                await send(producer, partitions(toy)[0], [bump(tenant, counter)] * 3)
            assert await applied(toy, tenant, 3) == 3
            await own_kafka.kill()
            await asyncio.sleep(2)
            await own_kafka.start()
            async with producer_at(toy) as producer:
                await send(producer, partitions(toy)[0], [bump(tenant, counter)] * 3)
            assert await applied(toy, tenant, 6) == 6
        assert await rows(toy, "SELECT off FROM inbox_parked") == []


async def test_no_partition_stands_behind_all_that_another_has(toy: Toy) -> None:
    places = partitions(toy)[:3]
    async with producer_at(toy) as producer:
        for place in places:
            await asyncio.gather(*[await producer.send(place.topic, b"{}", partition=place.partition) for _ in range(300)])
    assert sorted(await _turns(toy, places, 6)) == sorted(2 * places)


async def _turns(toy: Toy, places: list[TopicPartition], polls: int) -> list[TopicPartition]:
    """Whose records each of these polls gives, when there are some of all."""
    consumer = Consumer(bootstrap_servers=toy.settings.kafka_bootstrap_servers, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign(places)
        await consumer.seek_to_beginning()

        async def fetched() -> set[TopicPartition]:
            return {*consumer._fetcher._records}

        assert await until(fetched, lambda found: len(found) == len(places)) == {*places}
        served = [[*await consumer.getmany(max_records=20)] for _ in range(polls)]
    finally:
        await consumer.stop()
    assert {len(each) for each in served} == {1}
    return [each for [each] in served]
