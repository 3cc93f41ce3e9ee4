"""From Kafka to the database: a poll is one batch, a batch is one transaction, and the transaction knows where it stands.

The stored offset fences zombies (a member that was stopped past its session finds that the offset has moved on), the
watermark drops what a relay sent twice, and the effects, the outbox and both positions commit together. Kafka's own
commit afterwards only feeds lag dashboards. An invalid message is rejected and listed; one whose decision raises is
parked, later messages of its key queue behind it, and every other key flows on.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import orjson
import structlog
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from libs.common.clock import now
from libs.common.database import TRANSIENT, ConcurrencyError, Connection
from libs.common.errors import ConflictError, NotYetError, UnavailableError
from libs.common.messaging.broker import Broker
from libs.common.messaging.decision import IdentityMap
from libs.common.messaging.envelope import Invalid, KafkaRecord, Position, Reader, Received
from libs.common.messaging.shell import Failure, Shell
from libs.common.telemetry import Counter, Gauge, Histogram

MAX_RECORDS = 1_000
PASSING: tuple[type[Exception], ...] = (UnavailableError, ConcurrencyError, *TRANSIENT)
"""What passes by itself and is never held against a message."""
ARRIVAL_GRACE = timedelta(seconds=60)
"""How long a message may wait for something it refers to that may still be on its way."""
IDLE_POSITION_SECONDS = 5.0
REPORT_SECONDS = 1.0

APPLIED = Counter("cartwright_inbox_applied_total", "Messages whose decision was committed", ["topic"])
DUPLICATES = Counter("cartwright_inbox_duplicates_total", "Messages at or below the watermark, dropped", ["topic"])
FENCED = Counter("cartwright_inbox_fenced_total", "Batches given up because another member had moved the offset")
REFUSED = Counter("cartwright_inbox_refused_total", "Messages rejected, parked or queued", ["topic", "state", "reason"])
BATCH_SIZE = Histogram("cartwright_inbox_batch_size", "Messages in one transaction", buckets=(1, 4, 16, 64, 256, 1024))
BATCH_SECONDS = Histogram("cartwright_inbox_batch_seconds", "One transaction of the inbox")
LAG = Gauge("cartwright_inbox_lag", "Records behind the end of the partition", ["topic", "partition"])

log = structlog.get_logger(__name__)


class QueuedError(Exception):
    """An earlier message of the same key is parked."""


class FencedError(Exception):
    """Another member of the group has moved the stored offset."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message that is set aside instead of applied."""

    record: KafkaRecord
    state: str
    reason: str
    detail: str


FENCE = """SELECT p.topic, p.part, p.next_offset, p.watermarks,
    ARRAY(SELECT DISTINCT key FROM inbox_parked k
          WHERE k.consumer = p.consumer AND k.topic = p.topic AND k.state <> 'rejected') AS parked_keys
FROM inbox_position p JOIN unnest($2::text[], $3::int[]) AS w(topic, part) USING (topic, part)
WHERE p.consumer = $1 ORDER BY p.topic, p.part FOR UPDATE OF p"""

POSITIONS = """INSERT INTO inbox_position (consumer, topic, part, next_offset)
SELECT $1, topic, part, 0 FROM unnest($2::text[], $3::int[]) AS w(topic, part) ON CONFLICT DO NOTHING"""

READ_POSITIONS = """SELECT topic, part, next_offset FROM inbox_position
JOIN unnest($2::text[], $3::int[]) AS w(topic, part) USING (topic, part) WHERE consumer = $1"""

ADVANCE = """UPDATE inbox_position p SET next_offset = w.next_offset, watermarks = w.watermarks
FROM unnest($2::text[], $3::int[], $4::bigint[], $5::jsonb[]) AS w(topic, part, next_offset, watermarks)
WHERE p.consumer = $1 AND p.topic = w.topic AND p.part = w.part"""

REFUSE = """INSERT INTO inbox_parked (consumer, topic, part, off, key, headers, payload, state, reason, detail)
SELECT $1, * FROM
    unnest($2::text[], $3::int[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[], $8::text[], $9::text[], $10::text[])
ON CONFLICT DO NOTHING"""


class Inbox:
    """One consumer group of a service, as one member of it."""

    def __init__(self, shell: Shell, broker: Broker, *, group: str, topics: Sequence[str]) -> None:
        self._shell = shell
        self._broker = broker
        self._group = broker.prefix + group
        self._topics = [broker.topic(topic) for topic in topics]
        self._reader = Reader(shell.handlers.events(), topic_prefix=broker.prefix)
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
            group_id=self._group,
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
        """Apply one poll, in as few transactions as the database allows, and move on only past what is committed."""
        records: Sequence[ConsumerRecord[bytes, bytes]] = message.raw_message
        known = [record for record in records if _partition(record) in self._stored]
        if len(known) < len(records):
            await self._seek(list({_partition(record) for record in records}))
            return
        try:
            await self._consume(known)
            self._failures = 0
        except FencedError as error:
            FENCED.inc()
            log.warning("inbox.fenced", group=self._group, reason=str(error), action="reading the stored positions again")
            await self._seek(list({_partition(record) for record in records}))
        except PASSING as error:
            await self._back_off(error, records)

    async def _consume(self, records: Sequence[KafkaRecord]) -> None:
        read = [(record, self._reader.read(record)) for record in records]
        if any(found is not None for _, found in read) or self._position_is_due(records):
            self._irrelevant_polls = 0
            await self._apply(read)
        else:
            # A topic that is mostly other services' business is read in larger bites, which cost less.
            self._irrelevant_polls += 1
            await asyncio.sleep(min(max(self._irrelevant_polls - 5, 0) * 0.02, 0.2))
        self._reached |= _next_offsets(records)

    def _position_is_due(self, records: Sequence[KafkaRecord]) -> bool:
        """What concerns nobody here needs no transaction, but the stored position should not fall far behind."""
        moment = time.monotonic()
        return any(moment - self._moved_at.get(_partition(record), 0.0) > IDLE_POSITION_SECONDS for record in records)

    async def _apply(self, read: Sequence[tuple[KafkaRecord, Received | Invalid | None]]) -> None:
        """One transaction; when the database itself refuses the batch for good, halve it until the culprit is alone."""
        try:
            await self._transaction(read)
        except TRANSIENT:
            raise
        except (asyncpg.PostgresError, ConflictError) as error:
            if len(read) > 1:
                await self._apply(read[: len(read) // 2])
                await self._apply(read[len(read) // 2 :])
            else:
                record = read[0][0]
                await self._transaction([(record, Invalid(record, "database", f"{type(error).__name__}: {error}"))])

    async def _transaction(self, read: Sequence[tuple[KafkaRecord, Received | Invalid | None]]) -> None:
        received = [found for _, found in read if isinstance(found, Received)]
        partitions = _next_offsets([record for record, _ in read])
        started = time.perf_counter()
        async with self._shell.database.transaction(found.message.tenant_id for found in received) as connection:
            watermarks, parked = await self._fence(connection, partitions)
            fresh = _fresh(received, watermarks)
            answers, aggregates = await self._decide(connection, fresh, parked)
            await self._shell.store(connection, aggregates)
            refusals = [
                Refusal(found.record, "rejected", found.reason, found.detail) for _, found in read if isinstance(found, Invalid)
            ]
            refusals += [
                _refusal(found, answer.error) for found, answer in zip(fresh, answers, strict=True) if isinstance(answer, Failure)
            ]
            await self._refuse(connection, refusals)
            await self._advance(connection, partitions, watermarks)
        self._committed(aggregates, partitions, fresh, refusals)
        BATCH_SECONDS.observe(time.perf_counter() - started)
        BATCH_SIZE.observe(len(fresh))

    async def _fence(
        self, connection: Connection, partitions: dict[TopicPartition, int]
    ) -> tuple[dict[TopicPartition, dict[str, list[int]]], set[tuple[str, bytes]]]:
        """Lock the positions, which must be the ones we expect; answers the watermarks and the keys with parked messages."""
        topics, parts = [partition.topic for partition in partitions], [partition.partition for partition in partitions]
        rows = await connection.fetch(FENCE, self._group, topics, parts)
        found = {TopicPartition(row["topic"], row["part"]): row for row in rows}
        for partition in partitions:
            if partition not in found or found[partition]["next_offset"] != self._stored.get(partition):
                message = f"{partition.topic}[{partition.partition}] is not at {self._stored.get(partition)} any more"
                raise FencedError(message)
        parked = {(row["topic"], key) for row in rows for key in row["parked_keys"]}
        return {partition: orjson.loads(row["watermarks"]) for partition, row in found.items()}, parked

    async def _decide(
        self, connection: Connection, fresh: Sequence[Received], parked: set[tuple[str, bytes]]
    ) -> tuple[list[Any], IdentityMap]:
        keys = [(found.record.topic, found.record.key or b"") for found in fresh]

        def blocked(index: int, answers: list[Any]) -> Exception | None:
            if answers and isinstance(answers[-1], Failure):
                parked.add(keys[index - 1])
            return QueuedError("an earlier message of this key is parked") if keys[index] in parked else None

        answers, aggregates = await self._shell.decide(connection, [found.message for found in fresh], blocked)
        for found, answer in zip(fresh, answers, strict=True):
            waiting = isinstance(answer, Failure) and isinstance(answer.error, NotYetError)
            if waiting and now() - found.message.time < ARRIVAL_GRACE:
                raise answer.error
        return answers, aggregates

    async def _refuse(self, connection: Connection, refusals: Sequence[Refusal]) -> None:
        if not refusals:
            return
        records = [refusal.record for refusal in refusals]
        await connection.execute(
            REFUSE,
            self._group,
            [record.topic for record in records],
            [record.partition for record in records],
            [record.offset for record in records],
            [record.key for record in records],
            [_headers(record) for record in records],
            [record.value for record in records],
            [refusal.state for refusal in refusals],
            [refusal.reason for refusal in refusals],
            [refusal.detail for refusal in refusals],
        )

    async def _advance(
        self,
        connection: Connection,
        partitions: dict[TopicPartition, int],
        watermarks: dict[TopicPartition, dict[str, list[int]]],
    ) -> None:
        await connection.execute(
            ADVANCE,
            self._group,
            [partition.topic for partition in partitions],
            [partition.partition for partition in partitions],
            list(partitions.values()),
            [orjson.dumps(watermarks[partition]).decode() for partition in partitions],
        )

    def _committed(
        self,
        aggregates: IdentityMap,
        partitions: dict[TopicPartition, int],
        fresh: Sequence[Received],
        refusals: Iterable[Refusal],
    ) -> None:
        moment = time.monotonic()
        for partition, next_offset in partitions.items():
            self._stored[partition] = next_offset
            self._moved_at[partition] = moment
        for found in fresh:
            APPLIED.labels(found.record.topic).inc()
        for refusal in refusals:
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
                action="see inbox_parked; other keys go on",
            )
        self._shell.committed(aggregates)

    async def report(self) -> None:
        """Tell Kafka now and then where we are, for its lag dashboards; a commit a poll would cost more than the poll."""
        while True:
            await asyncio.sleep(REPORT_SECONDS)
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

    async def _back_off(self, error: Exception, records: Sequence[KafkaRecord]) -> None:
        self._failures += 1
        wait = min(0.05 * 2 ** min(self._failures, 7), 5)
        log.warning("inbox.retrying", group=self._group, error=str(error), in_seconds=wait, action="nothing is lost or parked")
        await asyncio.sleep(wait)
        await self._seek(list({_partition(record) for record in records}))

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
                await connection.execute(POSITIONS, self._group, topics, parts)
                rows = await connection.fetch(READ_POSITIONS, self._group, topics, parts)
        except PASSING as error:
            log.warning("inbox.position_unknown", error=str(error), action="the next poll asks again")
            return
        consumer = self._subscriber.consumer
        for row in rows:
            partition = TopicPartition(row["topic"], row["part"])
            if partition in consumer.assignment():
                consumer.seek(partition, row["next_offset"])
                self._stored[partition] = row["next_offset"]


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


async def _parse(records: tuple[KafkaRecord, ...]) -> KafkaMessage:
    """Keep the records as they came: the framework's own parser drops a message whose header is not UTF-8."""
    return KafkaMessage(raw_message=records, body=b"", headers={}, consumer=None)  # type: ignore[arg-type]


async def _keep(message: KafkaMessage) -> None:
    """Decode nothing; the envelope does, once."""


def _partition(record: KafkaRecord) -> TopicPartition:
    return TopicPartition(record.topic, record.partition)


def _next_offsets(records: Sequence[KafkaRecord]) -> dict[TopicPartition, int]:
    return {_partition(record): record.offset + 1 for record in records}


def _fresh(received: Sequence[Received], watermarks: dict[TopicPartition, dict[str, list[int]]]) -> list[Received]:
    """Those above the watermark of their partition and origin, which rises past them."""
    fresh = []
    for found in received:
        marks = watermarks[_partition(found.record)]
        if found.position is not None:
            if found.position <= _mark(marks, found.origin):
                DUPLICATES.labels(found.record.topic).inc()
                continue
            marks[found.origin] = list(found.position)
        fresh.append(found)
    return fresh


def _mark(marks: dict[str, list[int]], origin: str) -> Position:
    timeline, window, ordinal = marks.get(origin, (-1, -1, -1))
    return timeline, window, ordinal


def _refusal(found: Received, error: Exception) -> Refusal:
    if isinstance(error, QueuedError):
        return Refusal(found.record, "queued", "behind-parked", str(error))
    return Refusal(found.record, "parked", getattr(error, "code", type(error).__name__), str(error))


def _headers(record: KafkaRecord) -> bytes:
    return orjson.dumps([[name, value.decode(errors="backslashreplace")] for name, value in record.headers])
