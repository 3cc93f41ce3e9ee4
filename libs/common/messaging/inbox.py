"""From Kafka to the database: a poll is one batch, a batch is one transaction, and the transaction knows where it stands.

The stored offset fences zombies (a member that was stopped past its session finds that the offset has moved on), the
watermark drops what a relay sent twice, and the effects, the outbox and both positions commit together (`batch.py`).
Kafka's own commit only feeds lag dashboards. An invalid message is rejected and listed; one whose decision fails is
parked, later messages of its key queue behind it, and every other key flows on (`parked.py`).
"""

import asyncio
import time
from collections import Counter as Counts
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import asyncpg
import structlog
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from libs.common.database import PASSING, passes_by_itself
from libs.common.errors import ConflictError
from libs.common.messaging.batch import (
    Applied,
    Batch,
    FencedError,
    Read,
    TooManyFailuresError,
    next_offsets,
    partition_of,
)
from libs.common.messaging.broker import Broker
from libs.common.messaging.envelope import EventTooLargeError, Invalid, KafkaRecord, Reader
from libs.common.messaging.shell import Shell
from libs.common.telemetry import Counter, Gauge, Histogram
from libs.common.telemetry.traces import trace_id_of

MAX_RECORDS = 1_000
PARK_SHARE = 0.5
REMEMBERED_DAYS = 14
"""How long the ids of foreign deltas are kept; an older one cannot be told from a repetition."""
IDLE_POSITION_SECONDS = 5.0
REPORT_SECONDS = 1.0
ROTATE_SECONDS = 3_600.0
DATABASE_TRIES = 3
"""How often a batch that the database refuses is tried whole before it is taken apart."""
HALT_SECONDS = 10.0

APPLIED = Counter("cartwright_inbox_applied_total", "Messages whose decision was committed", ["topic"])
FENCED = Counter("cartwright_inbox_fenced_total", "Batches given up because another member had moved the offset")
REFUSED = Counter("cartwright_inbox_refused_total", "Messages rejected, parked or queued", ["topic", "state", "reason"])
RETRIED = Counter("cartwright_inbox_retried_total", "Batches tried again for what passes by itself")
BATCH_SIZE = Histogram("cartwright_inbox_batch_size", "Messages in one transaction", buckets=(1, 4, 16, 64, 256, 1024))
BATCH_SECONDS = Histogram("cartwright_inbox_batch_seconds", "One transaction of the inbox")
LAG = Gauge("cartwright_inbox_lag", "Records behind the end of the partition", ["topic", "partition"])
HALTED = Gauge("cartwright_inbox_halted", "1 while the consumer stands still rather than park most of a batch")

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
    ) -> None:
        self.reader = Reader(shell.handlers.events(), topic_prefix=broker.prefix)
        self.group = broker.prefix + group
        self.halted: str | None = None
        """Why the consumer stands still, while it does."""
        self._shell = shell
        self._topics = [broker.topic(topic) for topic in topics]
        self._batch = Batch(shell, self.reader, self.group, park_share=park_share, remembered_days=remembered_days)
        self._remembered_days = remembered_days
        self._stored: dict[TopicPartition, int] = {}
        """The offset that the database has, as far as we know; what is not in here has not been sought."""
        self._moved_at: dict[TopicPartition, float] = {}
        self._failures = 0
        self._irrelevant_polls = 0
        self._reached: dict[TopicPartition, int] = {}
        """How far we have come since Kafka was last told."""
        self._subscriber: Any = None

    def subscribe(self, kafka: KafkaBroker) -> None:
        """Register with FastStream: batches, manual acknowledgement, and a parser that nothing can break."""
        self._subscriber = kafka.subscriber(
            *self._topics,
            group_id=self.group,
            batch=True,
            max_records=MAX_RECORDS,
            batch_timeout_ms=200,
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset="earliest",
            listener=_Assignment(self),
            parser=_parse,
            decoder=_keep,
            session_timeout_ms=10_000,
            max_poll_interval_ms=300_000,
        )
        self._subscriber(self.consume)

    async def consume(self, message: KafkaMessage) -> None:
        """Apply one poll, in as few transactions as the database allows, and move on only past what is committed.

        Whatever happens, the partitions go back to where the database says they stand: no error may skip a record.
        """
        records: Sequence[ConsumerRecord[bytes, bytes]] = message.raw_message
        partitions = list({partition_of(record) for record in records})
        if not all(partition in self._stored for partition in partitions):
            await self._seek(partitions)
            return
        # A seek of the rebalance that ends while a poll is being applied puts the consumer back behind what is stored by then.
        records = [record for record in records if record.offset >= self._stored[partition_of(record)]]
        if not records:
            return
        try:
            await self._consume(records)
        except FencedError as error:
            FENCED.inc()
            log.warning("inbox.fenced", group=self.group, reason=str(error), action="reading the stored positions again")
            await self._seek(partitions)
        except TooManyFailuresError as error:
            self.halted = str(error)
            HALTED.set(1)
            log.critical("inbox.halted", group=self.group, reason=str(error), action="fix and deploy; nothing is parked or lost")
            await asyncio.sleep(HALT_SECONDS)
            await self._seek(partitions)
        except Exception as error:  # noqa: BLE001 - FastStream would go on behind the batch, and the batch would be lost
            await self._back_off(error, partitions)
        else:
            self._failures = 0
            self.halted = None
            HALTED.set(0)

    async def _consume(self, records: Sequence[KafkaRecord]) -> None:
        read = [(record, self.reader.read(record)) for record in records]
        if any(found is not None for _, found in read) or self._position_is_due(records):
            self._irrelevant_polls = 0
            await self._apply(read)
        else:
            # A topic that is mostly other services' business is read in larger bites, which cost less.
            self._irrelevant_polls += 1
            await asyncio.sleep(min(max(self._irrelevant_polls - 5, 0) * 0.02, 0.2))
        self._reached |= next_offsets(records)

    def _position_is_due(self, records: Sequence[KafkaRecord]) -> bool:
        """What concerns nobody here needs no transaction, but the stored position should not fall far behind."""
        moment = time.monotonic()
        return any(moment - self._moved_at.get(partition_of(record), 0.0) > IDLE_POSITION_SECONDS for record in records)

    async def _apply(self, read: Read) -> None:
        """One transaction; when the database refuses the batch again and again, halve it until the culprit is alone."""
        started = time.perf_counter()
        try:
            applied = await self._batch.apply(read, self._stored)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ConflictError, EventTooLargeError) as error:
            if passes_by_itself(error) or self._failures + 1 < DATABASE_TRIES:
                raise
            if len(read) > 1:
                await self._apply(read[: len(read) // 2])
                await self._apply(read[len(read) // 2 :])
                return
            record = read[0][0]
            reason = "event-too-large" if isinstance(error, EventTooLargeError) else "database"
            culprit = Invalid(record, reason, f"{type(error).__name__}: {error}")
            applied = await self._batch.apply([(record, culprit)], self._stored)
        self._committed(applied)
        BATCH_SECONDS.observe(time.perf_counter() - started)
        BATCH_SIZE.observe(len(applied.applied))

    def _committed(self, applied: Applied) -> None:
        moment = time.monotonic()
        for partition, offset in applied.offsets.items():
            self._stored[partition] = offset
            self._moved_at[partition] = moment
        for topic, count in Counts(found.record.topic for found in applied.applied).items():
            APPLIED.labels(topic).inc(count)
        for refusal in applied.refusals:
            record = refusal.record
            REFUSED.labels(record.topic, refusal.state, refusal.reason).inc()
            log.error(
                "inbox.refused",
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
        self._shell.committed(applied.aggregates)

    async def _back_off(self, error: Exception, partitions: Sequence[TopicPartition]) -> None:
        self._failures += 1
        RETRIED.inc()
        wait = min(0.05 * 2 ** min(self._failures, 7), 5)
        say = log.warning if passes_by_itself(error) else log.exception
        say("inbox.retrying", group=self.group, error=str(error), in_seconds=wait, action="nothing is lost or parked")
        await asyncio.sleep(wait)
        await self._seek(partitions)

    async def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Take over partitions where the database says they stand; unknown until that worked."""
        self._stored.clear()
        if partitions:
            await self._seek(partitions)

    async def _seek(self, partitions: Sequence[TopicPartition]) -> None:
        for partition in partitions:
            self._stored.pop(partition, None)
        topics, parts = [partition.topic for partition in partitions], [partition.partition for partition in partitions]
        try:
            async with self._shell.database.acquire() as connection:
                await connection.execute(POSITIONS, self.group, topics, parts)
                rows = await connection.fetch(READ_POSITIONS, self.group, topics, parts)
        except PASSING as error:
            log.warning("inbox.position_unknown", error=str(error), action="the next poll asks again")
            return
        consumer = self._subscriber.consumer
        for row in rows:
            partition = TopicPartition(row["topic"], row["part"])
            if consumer is not None and partition in consumer.assignment():
                consumer.seek(partition, row["next_offset"])
                self._stored[partition] = row["next_offset"]

    async def report(self) -> None:
        """Tell Kafka now and then where we are, for its lag dashboards; a commit a poll would cost more than the poll."""
        rotated_at = -ROTATE_SECONDS
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            if time.monotonic() - rotated_at > ROTATE_SECONDS:
                rotated_at = time.monotonic()
                await self._rotate()
            consumer = self._subscriber.consumer
            if consumer is None or not self._reached:
                continue
            reached, self._reached = self._reached, {}
            offsets = {partition: end for partition, end in reached.items() if partition in consumer.assignment()}
            for partition, end in offsets.items():
                LAG.labels(partition.topic, partition.partition).set(max(0, (consumer.highwater(partition) or end) - end))
            try:
                async with asyncio.timeout(2):
                    await consumer.commit(offsets)
            except (KafkaError, TimeoutError) as error:
                log.debug("inbox.commit_skipped", error=str(error))

    async def _rotate(self) -> None:
        """Make tomorrow's partition of the message ids, and drop those past their retention."""
        try:
            async with self._shell.database.acquire() as connection:
                await connection.execute("SELECT inbox_message_rotate($1)", self._remembered_days)
        except (*PASSING, asyncpg.PostgresError) as error:
            log.warning("inbox.rotation_failed", error=str(error), action="ids go to the default partition until it works")


POSITIONS = """INSERT INTO inbox_position (consumer, topic, part, next_offset)
SELECT $1, topic, part, 0 FROM unnest($2::text[], $3::int[]) AS w(topic, part) ON CONFLICT DO NOTHING"""

READ_POSITIONS = """SELECT topic, part, next_offset FROM inbox_position
JOIN unnest($2::text[], $3::int[]) AS w(topic, part) USING (topic, part) WHERE consumer = $1"""


class _Assignment(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Tells the inbox what it has been given."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Nothing to save: what is not committed was not done."""

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        await self._inbox.assigned(list(assigned))


def kafka_broker(broker: Broker) -> KafkaBroker:
    """FastStream's broker on our cluster. It never creates a topic."""
    return KafkaBroker(
        broker.bootstrap_servers,
        security=_security(broker.security),
        logger=None,
        graceful_timeout=15,
        allow_auto_create_topics=False,
    )


def _security(arguments: Mapping[str, Any]) -> BaseSecurity:
    """The same credentials in FastStream's words."""
    context = arguments.get("ssl_context")
    if not arguments["security_protocol"].startswith("SASL"):
        return BaseSecurity(ssl_context=context)
    mechanism = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}[
        arguments["sasl_mechanism"]
    ]
    return mechanism(username=arguments["sasl_plain_username"], password=arguments["sasl_plain_password"], ssl_context=context)


def _traceparent(record: KafkaRecord) -> str | None:
    value = dict(record.headers).get("traceparent")
    return value.decode(errors="replace") if value else None


async def _parse(records: tuple[KafkaRecord, ...]) -> KafkaMessage:
    """Keep the records as they came: the framework's own parser drops a message whose header is not UTF-8."""
    return KafkaMessage(raw_message=records, body=b"", headers={}, consumer=None)  # type: ignore[arg-type]


async def _keep(message: KafkaMessage) -> None:
    """Decode nothing; the envelope does, once."""
