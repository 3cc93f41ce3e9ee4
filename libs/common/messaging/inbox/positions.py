"""Where each partition stands, as the database has it, and the consumer put there."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import asyncpg
import structlog
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from libs.common.database import PASSING, Connection, Database
from libs.common.telemetry import Counter

MISSED = Counter("cartwright_inbox_missed_total", "Records that Kafka had deleted before they were read", ["topic"])

READ = """SELECT topic, part, next_offset FROM inbox_position
JOIN unnest($2::text[], $3::int[]) AS w(topic, part) USING (topic, part) WHERE consumer = $1"""

BEGIN = """INSERT INTO inbox_position (consumer, topic, part, next_offset)
SELECT $1, * FROM unnest($2::text[], $3::int[], $4::bigint[]) ON CONFLICT DO NOTHING"""

MOVE_ON = """UPDATE inbox_position SET next_offset = $5
WHERE consumer = $1 AND topic = $2 AND part = $3 AND next_offset = $4 RETURNING true"""

IDLE_SECONDS = 5.0
"""After so long what concerned nobody is stored as passed too: it may leave Kafka, and must not be missed then."""

log = structlog.get_logger(__name__)


class Positions:
    """The positions of one member of a group. What is not `stored` is nowhere, and nothing of it is taken, until it is sought."""

    def __init__(self, database: Database, group: str, consumer: Callable[[], Any]) -> None:
        self.stored: dict[TopicPartition, int] = {}
        """The offset that the database has, as far as we know."""
        self._polled: dict[TopicPartition, int] = {}
        """The offset that is to be polled next."""
        self._database = database
        self._group = group
        self._consumer = consumer
        self._moved_at: dict[TopicPartition, float] = {}

    def moved(self, offsets: Mapping[TopicPartition, int]) -> None:
        """A transaction has stored these."""
        for partition, offset in offsets.items():
            if partition in self.stored:  # else it was taken from us meanwhile
                self.stored[partition] = offset
                self._moved_at[partition] = time.monotonic()

    def seconds_since_moved(self, partition: TopicPartition) -> float:
        """How long ago we last stored this partition's position."""
        return time.monotonic() - self._moved_at.get(partition, 0.0)

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Take nothing more from these until they have been sought."""
        for partition in partitions:
            self.stored.pop(partition, None)
            self._polled.pop(partition, None)

    async def seek(self, partitions: Sequence[TopicPartition]) -> None:
        """Put the consumer where the database says it stands; unknown until that worked."""
        self.forget(partitions)
        try:
            async with self._database.acquire() as connection:
                found = await self._read(connection, partitions)
                begun = await self._begin(connection, [each for each in partitions if each not in found])
        except (*PASSING, asyncpg.PostgresError, KafkaError) as error:
            log.warning("inbox.position_unknown", error=str(error), action="the next poll asks again")
            return
        consumer = self._consumer()
        for partition, offset in (found | begun).items():
            if consumer is not None and partition in consumer.assignment():
                consumer.seek(partition, offset)
                self.stored[partition] = self._polled[partition] = offset

    async def _read(self, connection: Connection, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        rows = await connection.fetch(READ, self._group, *_columns(partitions))
        return {TopicPartition(row["topic"], row["part"]): row["next_offset"] for row in rows}

    async def _begin(self, connection: Connection, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Positions for partitions that have none: at their first record."""
        consumer = self._consumer()
        if not partitions or consumer is None:
            return {}
        first = await consumer.beginning_offsets(partitions)
        await connection.execute(BEGIN, self._group, *_columns(partitions), [first[partition] for partition in partitions])
        return await self._read(connection, partitions)

    async def expected(self, partition: TopicPartition, first: int) -> int | None:
        """Where a poll that begins with this offset should begin; None when it was polled before the last seek.

        Records that Kafka deleted before we came to them are reported loudly, once; nobody can bring them back.
        """
        consumer, expected = self._consumer(), self._polled.get(partition)
        try:
            if consumer is None or expected is None or await consumer.position(partition) <= first:
                return None
            if first > expected:  # transactions and compaction leave holes too
                _report_missed(partition, expected, min(first, consumer.log_start(partition)))
        except IllegalStateError:
            return None  # it is somebody else's by now
        return expected

    def polled(self, partition: TopicPartition, begin: int | None, end: int) -> bool:
        """Note that a poll from `begin` to `end` is taken. False when another is expected by now: this one is to be dropped."""
        if begin is None or self._polled.get(partition) != begin:
            return False
        self._polled[partition] = end
        return True

    async def store_passed(self, is_in_hand: Callable[[TopicPartition], bool]) -> None:
        """Store how far the quiet partitions have come past what concerned nobody: the ends of transactions, other events."""
        passed = {
            partition: (stored, self._polled[partition])
            for partition, stored in self.stored.items()
            if self._polled[partition] > stored and not is_in_hand(partition)
        }
        for partition, (stored, polled) in passed.items():
            if self.seconds_since_moved(partition) <= IDLE_SECONDS:
                continue
            try:
                async with self._database.acquire() as connection:
                    moved = await connection.fetchval(MOVE_ON, self._group, *partition, stored, polled)
            except (*PASSING, asyncpg.PostgresError) as error:
                log.info("inbox.position_not_stored", error=str(error), action="it is tried again")
                return
            if moved and self.stored.get(partition) == stored:
                self.moved({partition: polled})


def _report_missed(partition: TopicPartition, expected: int, found: int) -> None:
    if found > expected:
        MISSED.labels(partition.topic).inc(found - expected)
        log.critical(
            "inbox.missed",
            topic=partition.topic,
            partition=partition.partition,
            offset=expected,
            records=found - expected,
            action="deleted by Kafka's retention before we read them: have the publisher send them again, or rebuild",
        )


def _columns(partitions: Sequence[TopicPartition]) -> tuple[list[str], list[int]]:
    return [partition.topic for partition in partitions], [partition.partition for partition in partitions]
