"""Where each partition stands, as the database has it, and the consumer put there."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import asyncpg
import structlog
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from libs.common.database import PASSING
from libs.common.messaging.inbox.stored import StoredPositions
from libs.common.messaging.reading import Consumer
from libs.common.telemetry import Counter, Gauge

MISSED = Counter("cartwright_inbox_missed_total", "Records that Kafka had deleted before they were read", ["topic"])
REPLACED = Gauge(
    "cartwright_inbox_log_replaced", "1 while a partition is another log than the one we knew", ["group", "topic", "partition"]
)

MOVE_ON = """UPDATE inbox_position SET next_offset = $5
WHERE consumer = $1 AND topic = $2 AND part = $3 AND next_offset = $4 RETURNING true"""

IDLE_SECONDS = 5.0
"""After so long what concerned nobody is stored as passed too: it may leave Kafka, and must not be missed then."""

log = structlog.get_logger(__name__)


class Positions:
    """The positions of one member of a group. What is not `stored` is nowhere, and nothing of it is taken, until it is sought."""

    def __init__(self, stored: StoredPositions, group: str, consumer: Callable[[], Consumer | None]) -> None:
        self.stored: dict[TopicPartition, int] = {}
        """The offset that the database has, as far as we know."""
        self.replaced: dict[TopicPartition, str] = {}
        """The partitions whose log is not the one we knew, and why: nothing of them is read until somebody adopts them."""
        self._polled: dict[TopicPartition, int] = {}
        """The offset that is to be polled next."""
        self._in_database = stored
        self._group = group
        self._consumer = consumer
        self._moved_at: dict[TopicPartition, float] = {}
        self._known: dict[TopicPartition, int] = {}
        """What the database had when we last knew, also of partitions that have to be sought again."""

    def done_with(self, partition: TopicPartition, is_in_hand: Callable[[TopicPartition], bool]) -> int | None:
        """The offset before which everything is committed or concerned nobody; None if we never knew."""
        stored = self.stored.get(partition)
        if stored is None:
            return self._known.get(partition)
        return stored if is_in_hand(partition) else max(stored, self._polled.get(partition, stored))

    def moved(self, offsets: Mapping[TopicPartition, int]) -> None:
        """A transaction has stored these."""
        for partition, offset in offsets.items():
            if partition in self.stored:  # else it was taken from us meanwhile
                self.stored[partition] = self._known[partition] = offset
                self._moved_at[partition] = time.monotonic()

    def seconds_since_moved(self, partition: TopicPartition) -> float:
        """How long ago we last stored this partition's position."""
        return time.monotonic() - self._moved_at.get(partition, 0.0)

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Take nothing more from these until they have been sought."""
        for partition in partitions:
            self.stored.pop(partition, None)
            self._polled.pop(partition, None)

    def rest(self, partitions: Collection[TopicPartition], seconds: float) -> None:
        """Poll nothing of these for a while. A rebalance may end it early, which costs another look."""
        consumer = self._consumer()
        if consumer is None:
            return
        ours = [partition for partition in partitions if partition in consumer.assignment()]
        if ours:
            consumer.pause(*ours)
            asyncio.get_running_loop().call_later(seconds, self._rested, ours)

    def _rested(self, partitions: Collection[TopicPartition]) -> None:
        consumer = self._consumer()
        if consumer is not None:
            consumer.resume(*(partition for partition in partitions if partition in consumer.assignment()))

    async def seek(self, partitions: Sequence[TopicPartition]) -> None:
        """Put the consumer where the database says it stands; unknown until that worked."""
        self.forget(partitions)
        consumer = self._consumer()
        if consumer is None:
            return
        try:
            stand, replaced = await self._in_database.take_over(consumer, partitions)
        except (*PASSING, asyncpg.PostgresError, KafkaError) as error:
            log.warning("inbox.position_unknown", error=str(error), action="the next poll asks again")
            return
        for partition in partitions:
            if partition not in consumer.assignment():
                continue
            self._tell(partition, replaced.get(partition))
            if partition in replaced:
                consumer.pause(partition)
            elif partition in stand:
                consumer.resume(partition)
                consumer.seek(partition, stand[partition])
                self.stored[partition] = self._polled[partition] = self._known[partition] = stand[partition]

    def _tell(self, partition: TopicPartition, why: str | None) -> None:
        """Say that a log was replaced, once and wherever anybody looks, or that it is right again."""
        known = self.replaced.pop(partition, None)
        REPLACED.labels(self._group, *partition).set(int(why is not None))
        if why is not None:
            self.replaced[partition] = why
            if known is None:
                log.critical(
                    "inbox.log_replaced",
                    group=self._group,
                    topic=partition.topic,
                    partition=partition.partition,
                    reason=why,
                    action="it is not read: see docs/runbooks/lost-log.md, then ./cartwright positions adopt",
                )

    async def changed(self) -> list[TopicPartition]:
        """The partitions of which Kafka has another log, or a shorter one, than when they were sought."""
        consumer, held = self._consumer(), list(self.stored)
        if consumer is None or not held:
            return []
        logs, seen = await consumer.logs({partition.topic for partition in held}), self._in_database.seen
        still_ours = consumer.assignment()
        return [
            partition
            for partition in held
            if partition in still_ours
            and (
                logs.get(partition) != seen.get(partition)
                or (consumer.highwater(partition) or self.stored.get(partition, 0)) < self.stored.get(partition, 0)
            )
        ]

    def is_behind(self, partition: TopicPartition, first: int) -> bool:
        """Whether a poll begins before what was polled: somebody, or the end of a log that became shorter, put us back."""
        return first < self._polled.get(partition, 0)

    async def expected(self, partition: TopicPartition, first: int) -> int | None:
        """Where a poll that begins with this offset should begin; None when it was polled before the last seek.

        Records that Kafka deleted before we came to them are reported loudly, once; nobody can bring them back.
        """
        consumer, expected = self._consumer(), self._polled.get(partition)
        try:
            if consumer is None or expected is None or first < expected or await consumer.position(partition) <= first:
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
                async with self._in_database.database.acquire() as connection:
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
