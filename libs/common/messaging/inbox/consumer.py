"""One member of a consumer group: takes polls from FastStream, and hands them to the lanes."""

import asyncio
import time
from collections import Counter as Counts
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

import asyncpg
import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from libs.common.contracts import EXTERNAL_TOPICS
from libs.common.database import PASSING
from libs.common.messaging.batch import Applied, Batch, next_offsets
from libs.common.messaging.broker import DENIED, REFUSALS, Broker
from libs.common.messaging.envelope import KafkaRecord, Reader
from libs.common.messaging.inbox.kafka import Assignment, parse, records_of, tell_failed_polls
from libs.common.messaging.inbox.lanes import Lanes
from libs.common.messaging.inbox.positions import IDLE_SECONDS, Positions
from libs.common.messaging.inbox.resuming import Resuming
from libs.common.messaging.inbox.stored import StoredPositions
from libs.common.messaging.ordering import Read
from libs.common.messaging.parked import Refusal
from libs.common.messaging.reading import UNREADABLE as UNREADABLE_BATCH
from libs.common.messaging.reading import Consumer
from libs.common.messaging.shell import Shell
from libs.common.messaging.sources import BUDGET
from libs.common.messaging.waiting import GRACE_SECONDS, Waiting
from libs.common.telemetry import Counter, Gauge
from libs.common.telemetry.traces import trace_id_of

MAX_RECORDS = 1_000
PLACE: Final = attrgetter("topic", "partition")
FOR_EVER_MS = 10 * 365 * 24 * 3_600_000
"""A poll waits for its first record. One that came back without any costs its CPU, and FastStream sleeps as long after it."""
RECOVER_SECONDS = 1.0
REFUSED_SECONDS = 20.0
"""A poll that was refused is repeated every five seconds. When none was for so long, we are let in again."""
PATIENT_BYTES, PATIENT_MS = 65_536, 250
"""Kafka answers who is in no hurry when there is as much to read, or after as long; else every record wakes us."""
PARK_SHARE = 0.5
REMEMBERED_DAYS = 14
"""How long the ids of foreign deltas are kept; an older one cannot be told from a repetition."""
REPORT_SECONDS = 1.0
COMPARE_SECONDS = 5.0
ASK_SECONDS = 5.0
ROTATE_SECONDS = 3_600.0

APPLIED = Counter("cartwright_inbox_applied_total", "Messages whose decision was committed", ["group", "topic"])
REFUSED = Counter("cartwright_inbox_refused_total", "Messages rejected, parked or queued", ["topic", "state", "reason"])
UNREADABLE = Counter("cartwright_inbox_unreadable_total", "Batches that nobody can read, passed over", ["group", "topic"])
HELD_BACK = Counter("cartwright_inbox_held_back_total", "Messages passed over because their source is paused", ["topic"])
LAG = Gauge("cartwright_inbox_lag", "Records behind the end of the partition", ["group", "topic", "partition"])

log = structlog.get_logger(__name__)


class Inbox:
    """One consumer group of a service, as one member of it."""

    def __init__(
        self,
        shell: Shell,
        broker: Broker,
        *,
        group: str,
        topics: Sequence[str],
        park_share: float = PARK_SHARE,
        remembered_days: int = REMEMBERED_DAYS,
        grace_seconds: float = GRACE_SECONDS,
        source_budget: int = BUDGET,
        patient: bool = False,
        adopts_new_logs: bool = False,
    ) -> None:
        self.reader = Reader(shell.handlers.events(), topic_prefix=broker.prefix)
        self.group = broker.prefix + group
        self._shell = shell
        self._topics = [broker.topic(topic) for topic in topics]
        self._remembered_days = remembered_days
        self.stored = StoredPositions(shell.database, self.group, self._topics, self._connected, adopts=adopts_new_logs)
        self._positions = Positions(self.stored, self.group, self._connected)
        batch = Batch(
            shell,
            self.reader,
            self.group,
            park_share=park_share,
            remembered_days=remembered_days,
            foreign=frozenset(map(broker.topic, EXTERNAL_TOPICS)),
            budget=source_budget,
        )
        self.sources = Resuming(shell, batch, self.reader, broker, self.group, committed=self._committed)
        self.waiting = Waiting(shell, self.reader, self.group, grace_seconds=grace_seconds)
        self._lanes = Lanes(
            batch,
            self._positions,
            room=MAX_RECORDS,
            committed=self._committed,
            held_open=self._held_open,
            group=self.group,
        )
        self._patient = patient
        self._reached: dict[TopicPartition, int] = {}
        """How far we have come since Kafka was last told."""
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

    def subscribe(self, kafka: KafkaBroker) -> None:
        """Register with FastStream: batches, manual acknowledgement, and a parser that nothing can break."""
        self._subscriber = kafka.subscriber(
            *self._topics,
            group_id=self.group,
            batch=True,
            max_records=MAX_RECORDS,
            batch_timeout_ms=FOR_EVER_MS,
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset="earliest",
            listener=Assignment(self.assigned),
            parser=parse,
            decoder=records_of,
            session_timeout_ms=10_000,
            max_poll_interval_ms=300_000,
            fetch_min_bytes=PATIENT_BYTES if self._patient else 1,
            fetch_max_wait_ms=PATIENT_MS if self._patient else 500,
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
            partition: [(record, self.reader.read(record)) for record in run]
            for partition, run in runs.items()
            if self._positions.polled(partition, expected[partition], run[-1].offset + 1)
        }
        concerns_us = any(found is not None for run in read.values() for _, found in run)
        if concerns_us or self._position_is_due(read):
            self._lanes.put(read)
        self._reached |= next_offsets(read)

    def _position_is_due(self, read: Read) -> bool:
        """What concerns nobody here needs no transaction, but the stored position should not fall far behind."""
        return any(self._positions.seconds_since_moved(partition) > IDLE_SECONDS for partition in read)

    def _committed(self, applied: Applied) -> None:
        for topic, count in Counts(found.record.topic for found in applied.applied).items():
            APPLIED.labels(self.group, topic).inc(count)
        for refusal in applied.refusals:
            self._refused(refusal)
        for stretch in applied.held_back:
            HELD_BACK.labels(stretch.partition.topic).inc(stretch.records)
        for source in applied.paused:
            log.critical(
                "inbox.source_paused",
                group=self.group,
                source=source.name,
                tenant_id=str(source.tenant_id),
                reason="it has more messages refused than it may",
                action="./cartwright sources list; everybody else goes on",
            )
        self._shell.committed(applied.aggregates)

    def _refused(self, refusal: Refusal) -> None:
        record = refusal.record
        REFUSED.labels(record.topic, refusal.state, refusal.reason).inc()
        if refusal.state == "waiting" and refusal.tenant_id is not None:
            self.waiting.noted(refusal.tenant_id)
        say, what = log.error if refusal.state in ("parked", "rejected") else log.info, "inbox.refused"
        if refusal.reason == UNREADABLE_BATCH:
            UNREADABLE.labels(self.group, record.topic).inc()
            say, what = log.critical, "inbox.unreadable"
        say(
            what,
            state=refusal.state,
            reason=refusal.reason,
            detail=refusal.detail,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            tenant_id=str(refusal.tenant_id or ""),
            **trace_id_of(_traceparent(record)),
            action="./cartwright parked list; other keys go on",
        )

    async def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Take over partitions where the database says they stand; unknown until that worked."""
        everything = list(self._positions.stored)
        self._positions.forget(everything)
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
        rotated_at, compared_at = -ROTATE_SECONDS, time.monotonic()
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            if time.monotonic() - rotated_at > ROTATE_SECONDS:
                rotated_at = time.monotonic()
                await self._rotate()
            consumer = self._subscriber.consumer
            if consumer is None:
                continue
            await self._seek_lost(consumer)
            await self._positions.store_passed(self._lanes.holds)
            if time.monotonic() - compared_at > COMPARE_SECONDS:
                compared_at = time.monotonic()
                await self._compare_logs()
            if not self._reached:
                continue
            reached, self._reached = self._reached, {}
            offsets = {partition: end for partition, end in reached.items() if partition in consumer.assignment()}
            for partition, end in offsets.items():
                behind = max(0, (consumer.highwater(partition) or end) - end)
                LAG.labels(self.group, partition.topic, partition.partition).set(behind)
            try:
                async with asyncio.timeout(2):
                    await consumer.commit(offsets)
            except (KafkaError, TimeoutError) as error:
                log.debug("inbox.commit_skipped", error=str(error))

    async def _compare_logs(self) -> None:
        """Find out whether all logs are still those that were sought, and seek those that are not."""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                changed = await self._positions.changed()
        except (KafkaError, TimeoutError) as error:
            log.debug("inbox.logs_not_compared", error=str(error))
            return
        if changed:
            async with self._lanes.going_back:
                pass
            await self._seek(changed)

    async def _rotate(self) -> None:
        """Make tomorrow's partition of the message ids, and drop those past their retention."""
        try:
            async with self._shell.database.acquire() as connection:
                await connection.execute("SELECT inbox_message_rotate($1)", self._remembered_days)
        except (*PASSING, asyncpg.PostgresError) as error:
            log.warning("inbox.rotation_failed", error=str(error), action="ids go to the default partition until it works")


def _traceparent(record: KafkaRecord) -> str | None:
    value = dict(record.headers).get("traceparent")
    return value.decode(errors="replace") if value else None
