"""One member of a group in Kafka: takes polls from FastStream, and hands them to its lanes.

What we publish ourselves and what others send is read apart, by two members (`Course`): neither waits for the other, nor
has room that the other needs.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from libs.common.database import Database
from libs.common.messaging.batch import Applied, Batch
from libs.common.messaging.broker import DENIED
from libs.common.messaging.envelope import KafkaRecord, Reader
from libs.common.messaging.inbox.kafka import Assignment, parse, records_of, tell_failed_polls
from libs.common.messaging.inbox.lanes import LANES, Lanes
from libs.common.messaging.inbox.positions import IDLE_SECONDS, Positions
from libs.common.messaging.inbox.stored import StoredPositions
from libs.common.messaging.login import REFUSALS
from libs.common.messaging.ordering import Read
from libs.common.messaging.reading import Consumer
from libs.common.telemetry import Gauge

MAX_RECORDS = 1_000
PLACE: Final = attrgetter("topic", "partition")
FOR_EVER_MS = 10 * 365 * 24 * 3_600_000
"""A poll waits for its first record. One that came back without any costs its CPU, and FastStream sleeps as long after it."""
RECOVER_SECONDS = 1.0
REFUSED_SECONDS = 20.0
"""A poll that was refused is repeated every five seconds. When none was for so long, we are let in again."""
PATIENT_BYTES, PATIENT_MS = 65_536, 250
"""Kafka answers who is in no hurry when there is as much to read, or after as long; else every record wakes us."""
REPORT_SECONDS = 1.0
COMPARE_SECONDS = 5.0
ASK_SECONDS = 5.0

LAG = Gauge("cartwright_inbox_lag", "Records behind the end of the partition", ["group", "topic", "partition"])

log = structlog.get_logger(__name__)


async def _at_once(_worked_seconds: float) -> None:
    """Nobody is in the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What one member reads, and how."""

    topics: Sequence[str]
    kafka_group: str
    lanes: int = LANES
    max_records: int = MAX_RECORDS
    patient: bool = False
    concerned: Callable[[], None] = lambda: None
    """Told when something has come that concerns us."""
    rest: Callable[[float], Awaitable[None]] = _at_once
    """What follows a transaction that took so many seconds."""


class Member:
    """Reads some of a group's topics."""

    def __init__(
        self,
        course: Course,
        group: str,
        database: Database,
        reader: Reader,
        batch: Batch,
        *,
        committed: Callable[[Applied], None],
        adopts_new_logs: bool,
    ) -> None:
        self.group = group
        self._course = course
        self._reader = reader
        self.stored = StoredPositions(database, group, course.topics, self._connected, adopts=adopts_new_logs)
        self._positions = Positions(self.stored, group, self._connected)
        self._lanes = Lanes(
            batch,
            self._positions,
            count=course.lanes,
            room=course.max_records,
            committed=committed,
            rest=course.rest,
            held_open=self._held_open,
            name=course.kafka_group,
        )
        self._told: dict[TopicPartition, int] = {}
        """How far Kafka was told that we have come."""
        self._measured: set[TopicPartition] = set()
        """The partitions whose lag is shown."""
        self._subscriber: Any = None
        self._kept_out: tuple[float, str] | None = None
        """When the broker last did not let us read, and its reason."""

    @property
    def refused(self) -> str | None:
        """Why the broker does not let us read, while it does not."""
        if self._kept_out is None or time.monotonic() - self._kept_out[0] > REFUSED_SECONDS:
            return None
        return self._kept_out[1]

    def poll_failed(self, error: KafkaError) -> None:
        """Say why a poll failed; it is repeated by itself."""
        reason = f"{type(error).__name__.removesuffix('Error')} {error.args[0] if error.args else ''}".strip()
        if isinstance(error, REFUSALS):
            self._kept_out = (time.monotonic(), reason)
            DENIED.labels("consume").inc()
            log.error(
                "inbox.refused_by_broker", group=self.group, reason=reason, action="give this service its rights at the broker"
            )
        else:
            log.warning("inbox.poll_interrupted", group=self.group, error=reason, action="nothing is lost; polled again")

    @property
    def halted(self) -> str | None:
        """Why the consumer stands still, while it does."""
        return self._lanes.halted

    @property
    def replaced(self) -> str | None:
        """Which partitions are not read because their log is not the one we knew, and why, if there are any."""
        found = [f"{partition.topic}[{partition.partition}]: {why}" for partition, why in self._positions.replaced.items()]
        return f"{self.group}: {found[0]} ({len(found)} in all)" if found else None

    def _connected(self) -> Consumer | None:
        consumer: Consumer | None = self._subscriber.consumer if self._subscriber is not None else None
        return consumer

    async def expel(self, clients: Collection[str]) -> None:
        """Have these clients leave our group: they are dead."""
        if (consumer := self._connected()) is not None:
            await consumer.expel(clients)

    def subscribe(self, kafka: KafkaBroker) -> None:
        """Register with FastStream: batches, manual acknowledgement, and a parser that nothing can break."""
        self._subscriber = kafka.subscriber(
            *self._course.topics,
            group_id=self._course.kafka_group,
            batch=True,
            max_records=self._course.max_records,
            batch_timeout_ms=FOR_EVER_MS,
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset="earliest",
            listener=Assignment(self.assigned),
            parser=parse,
            decoder=records_of,
            session_timeout_ms=10_000,
            max_poll_interval_ms=300_000,
            fetch_min_bytes=PATIENT_BYTES if self._course.patient else 1,
            fetch_max_wait_ms=PATIENT_MS if self._course.patient else 500,
        )
        self._subscriber(self.consume)
        tell_failed_polls(self._subscriber, self.poll_failed)

    def _held_open(self) -> AbstractContextManager[object]:
        """FastStream's own lock of what is under way: `stop` waits for it."""
        lock: AbstractContextManager[object] = self._subscriber.lock
        return lock

    async def consume(self, records: Sequence[KafkaRecord]) -> None:
        """Take one poll. Comes back when there is room for another, which is before this one is applied."""
        runs = {TopicPartition(*place): list(run) for place, run in groupby(records, key=PLACE)}
        try:
            await self._take(runs)
        except Exception:  # whatever it is: FastStream says nothing, and the next poll would pass over these records
            log.exception("inbox.poll_failed", in_seconds=RECOVER_SECONDS, action="nothing is lost; polled again")
            await asyncio.sleep(RECOVER_SECONDS)
            await self._seek(list(runs))
        await self._lanes.room()

    async def _take(self, runs: Mapping[TopicPartition, Sequence[KafkaRecord]]) -> None:
        """Read the records of a poll, and put them into the lanes."""
        async with self._lanes.going_back:
            pass
        unknown = [
            partition
            for partition, run in runs.items()
            if partition not in self._positions.stored or self._positions.is_behind(partition, run[0].offset)
        ]
        if unknown:
            await self._seek(unknown)
        expected = {partition: await self._positions.expected(partition, run[0].offset) for partition, run in runs.items()}
        # Nothing below waits until the poll is in a lane: no seek can come in between.
        read = {
            partition: [(record, self._reader.read(record)) for record in run]
            for partition, run in runs.items()
            if self._positions.polled(partition, expected[partition], run[-1].offset + 1)
        }
        concerns_us = any(found is not None for run in read.values() for _, found in run)
        if concerns_us:
            self._course.concerned()
        if concerns_us or self._position_is_due(read):
            self._lanes.put(read)

    def _position_is_due(self, read: Read) -> bool:
        """What concerns nobody here needs no transaction, but the stored position should not fall far behind."""
        return any(self._positions.seconds_since_moved(partition) > IDLE_SECONDS for partition in read)

    async def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Take over partitions where the database says they stand; unknown until that worked."""
        everything = list(self._positions.stored)
        self._positions.forget(everything)
        self._told.clear()
        self._lanes.drop(everything)
        self._lanes.forget_halts()
        if partitions:
            await self._seek(partitions)

    async def _seek(self, partitions: Sequence[TopicPartition]) -> None:
        self._lanes.drop(partitions)
        await self._positions.seek(partitions)

    async def _seek_lost(self, consumer: Any) -> None:
        """Seek again what could not be sought: until another record came, no poll would ask for those that were read before."""
        async with self._lanes.going_back:
            pass
        if lost := [partition for partition in consumer.assignment() if partition not in self._positions.stored]:
            await self._seek(lost)

    async def report(self) -> None:
        """Tell Kafka now and then where we are, for its lag dashboards; a commit a poll would cost more than the poll."""
        compared_at = time.monotonic()
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            consumer = self._subscriber.consumer
            if consumer is None:
                continue
            await self._seek_lost(consumer)
            await self._positions.store_passed(self._lanes.holds)
            if time.monotonic() - compared_at > COMPARE_SECONDS:
                compared_at = time.monotonic()
                await self._compare_logs(consumer)
            await self._tell(consumer)

    async def _tell(self, consumer: Consumer) -> None:
        """How far we are, by what is committed here: what was polled and is not decided is behind us yet."""
        done = {partition: self._positions.done_with(partition, self._lanes.holds) for partition in consumer.assignment()}
        for partition in self._measured - done.keys():  # another's now: what we last saw there would be believed for ever
            LAG.remove(self.group, partition.topic, partition.partition)
        self._measured &= done.keys()
        offsets = {partition: at for partition, at in done.items() if at is not None}
        for partition, at in offsets.items():
            behind = max(0, (consumer.highwater(partition) or at) - at)
            LAG.labels(self.group, partition.topic, partition.partition).set(behind)
            self._measured.add(partition)
        news = {partition: at for partition, at in offsets.items() if self._told.get(partition) != at}
        try:
            async with asyncio.timeout(2):
                if news:
                    await consumer.commit(news)
        except (KafkaError, TimeoutError) as error:
            log.debug("inbox.commit_skipped", error=str(error))
        else:
            self._told |= news

    async def _compare_logs(self, consumer: Consumer) -> None:
        """Find out whether all logs are still those that were sought, and seek those that are not."""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await consumer.look_for(self._course.topics)
                changed = await self._positions.changed()
        except (KafkaError, TimeoutError) as error:
            log.debug("inbox.logs_not_compared", error=str(error))
            return
        if changed:
            async with self._lanes.going_back:
                pass
            await self._seek(changed)
