"""One transaction of the inbox: fence, drop what was seen, decide in order, store, park what fails, move on.

Two kinds of order. Our own relays keep a key's order, so its messages are decided as they lie in the partition. Other
publishers may not, so theirs are decided by their sequence, together with those of the key that wait for a gap to close.
"""

from collections import Counter as Counts
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from aiokafka import TopicPartition

from libs.common.clock import now
from libs.common.database import Connection, Write
from libs.common.decision import IdentityMap
from libs.common.errors import ConflictError, NotYetError, UnbelievableError
from libs.common.messaging.attributes import Position
from libs.common.messaging.brake import Brake
from libs.common.messaging.envelope import EventTooLargeError, Invalid, KafkaRecord, Reader, Received
from libs.common.messaging.parked import (
    GAP,
    Parked,
    QueuedError,
    Refusal,
    code_of,
    heads,
    mark,
    park,
    waiting_for_gap,
    whose,
)
from libs.common.messaging.shell import Failure, Shell
from libs.common.telemetry import Counter
from libs.common.telemetry.messages import BatchSpans

DUPLICATES = Counter("cartwright_inbox_duplicates_total", "Messages seen before, dropped", ["topic"])

Found = tuple[KafkaRecord, Received | Invalid | None]
Read = Mapping[TopicPartition, Sequence[Found]]
"""Records as they lie in their partitions, and what was read in them."""
Marks = dict[TopicPartition, dict[str, Position]]
Key = tuple[str, bytes]

Outcomes = tuple[Mapping[tuple[str, UUID], int], Mapping[tuple[str, UUID], tuple[int, str]]]
"""By topic and tenant: how many messages were decided; and how many failed, with one of the errors."""

NEVER: Position = (-1, -1, -1)
MAX_POSITION = 2**63


class FencedError(Exception):
    """Another member of the group has moved the stored offset."""


class UnstorableError(Exception):
    """What a message leads to cannot be stored, whatever it is tried with."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        said_by_database = isinstance(cause, asyncpg.PostgresError | asyncpg.InterfaceError | ConflictError)
        self.code = "database" if said_by_database else type(cause).__name__
        if isinstance(cause, EventTooLargeError):
            self.code = "event-too-large"


@dataclass(frozen=True, slots=True)
class Applied:
    """What one transaction did."""

    aggregates: IdentityMap
    offsets: Mapping[TopicPartition, int]
    applied: Sequence[Received]
    refusals: Sequence[Refusal]


@dataclass(frozen=True, slots=True)
class _Fence:
    """What the positions say that are locked."""

    marks: Marks
    has_parked: bool


FENCE = """SELECT p.topic, p.part, p.next_offset, p.watermarks, EXISTS (SELECT FROM inbox_parked k
    WHERE k.consumer = p.consumer AND k.topic = p.topic AND k.state IN ('waiting', 'parked', 'queued')) AS has_parked
FROM inbox_position p JOIN unnest($2::text[], $3::int[]) AS w(topic, part) USING (topic, part)
WHERE p.consumer = $1 ORDER BY p.topic, p.part FOR UPDATE OF p"""

ADVANCE = """UPDATE inbox_position p SET next_offset = w.next_offset, watermarks = w.watermarks
FROM unnest($2::text[], $3::int[], $4::bigint[], $5::jsonb[]) AS w(topic, part, next_offset, watermarks)
WHERE p.consumer = $1 AND p.topic = w.topic AND p.part = w.part"""

REMEMBER = """INSERT INTO inbox_message (consumer, source, message_id, day)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::date[]) ON CONFLICT DO NOTHING RETURNING source, message_id"""


class Batch:
    """Applies batches of one consumer group."""

    def __init__(
        self,
        shell: Shell,
        reader: Reader,
        group: str,
        *,
        park_share: float,
        remembered_days: int,
        foreign: Collection[str],
    ) -> None:
        self._shell = shell
        self._reader = reader
        self._group = group
        self._brake = Brake(share=park_share, foreign=foreign)
        self._remembered_days = remembered_days

    async def apply(self, read: Read, stored: Mapping[TopicPartition, int]) -> Applied:
        """Apply what was read in one transaction. Raises FencedError unless the database stands where we think."""
        received = {partition: [found for _, found in run if isinstance(found, Received)] for partition, run in read.items()}
        refusals = [Refusal.of_invalid(found) for run in read.values() for _, found in run if isinstance(found, Invalid)]
        offsets = next_offsets(read)
        # Also those that a refused record names: it is listed under its tenant, which nothing else here acts for.
        tenant_ids = {found.message.tenant_id for run in received.values() for found in run}
        tenant_ids |= {refusal.tenant_id for refusal in refusals if refusal.tenant_id is not None}
        async with BatchSpans(self._group) as spans, self._shell.database.transaction(tenant_ids) as connection:
            fence = await self._fence(connection, offsets, stored)
            fresh = await self._remember(connection, above_watermark(received, fence.marks), refusals)
            blocked, waiting = await self._parked_before(connection, fresh) if fence.has_parked else (set(), [])
            ordered = in_order(fresh, waiting, self._is_delta)
            answers, aggregates = await self._decide(connection, ordered, blocked, spans)
            outcomes = outcomes_of(ordered, answers)
            self._brake.judge(*outcomes)
            refusals += await self._after(connection, ordered, answers)
            refused_too = [park(self._group, refusals)] if refusals else []
            await self._shell.store(connection, aggregates, *refused_too, self._advance(offsets, fence.marks))
        self._brake.settled(*outcomes)
        applied = [found for found, answer in zip(ordered, answers, strict=True) if not isinstance(answer, Failure)]
        return Applied(aggregates, offsets, [found for found in applied if isinstance(found, Received)], refusals)

    async def give_up(self, read: Read, stored: Mapping[TopicPartition, int], error: Exception) -> Applied:
        """Set aside the one record that is read, because of this error. Nothing of it is used that could bring it about again."""
        [[(record, found)]] = read.values()
        offsets, failure = next_offsets(read), UnstorableError(error)
        named = found.message.tenant_id if isinstance(found, Received) else whose(record)
        async with self._shell.database.transaction([named] if named else []) as connection:
            fence = await self._fence(connection, offsets, stored)
            key = (record.topic, record.key or b"")
            reason = (await heads(connection, self._group, {key})).get(key) if fence.has_parked else None
            refusal = _given_up(record, found, failure, is_behind=reason is not None and reason != GAP)
            outcomes = _outcome_of(refusal)
            self._brake.judge(*outcomes)
            if isinstance(found, Received) and _is_plain(found):
                above_watermark({partition_of(record): [found]}, fence.marks)
            writes = park(self._group, [refusal]), self._advance(offsets, fence.marks)
            await self._shell.store(connection, IdentityMap(), *writes)
        self._brake.settled(*outcomes)
        return Applied(IdentityMap(), offsets, [], [refusal])

    async def _fence(
        self, connection: Connection, offsets: Mapping[TopicPartition, int], stored: Mapping[TopicPartition, int]
    ) -> "_Fence":
        """Lock the positions, which must be the ones we expect."""
        topics, parts = [partition.topic for partition in offsets], [partition.partition for partition in offsets]
        rows = await connection.fetch(FENCE, self._group, topics, parts)
        found = {TopicPartition(row["topic"], row["part"]): row for row in rows}
        for partition in offsets:
            if partition not in found or found[partition]["next_offset"] != stored.get(partition):
                raise FencedError(f"{partition.topic}[{partition.partition}] is not at {stored.get(partition)} any more")
        marks = {partition: _marks(row["watermarks"]) for partition, row in found.items()}
        return _Fence(marks, any(row["has_parked"] for row in rows))

    async def _remember(self, connection: Connection, fresh: Sequence[Received], refusals: list[Refusal]) -> list[Received]:
        """Drop the foreign deltas whose ids were seen before, and refuse those too old to know."""
        deltas = [found for found in fresh if found.position is None and self._is_delta(found)]
        if not deltas:
            return list(fresh)
        oldest = now() - timedelta(days=self._remembered_days)
        why = f"older than the {self._remembered_days} days that ids are kept for"
        refusals.extend(Refusal.rejected(found, "too-old", why) for found in deltas if found.message.time < oldest)
        young = [found.message for found in deltas if found.message.time >= oldest]
        rows = await connection.fetch(
            REMEMBER,
            self._group,
            [message.source for message in young],
            [message.id for message in young],
            [message.time.astimezone(UTC).date() for message in young],
        )
        return _unseen(fresh, deltas, {(row["source"], row["message_id"]) for row in rows})

    def _is_delta(self, found: Received | Parked) -> bool:
        return self._shell.handlers[type(found.message.data)].is_delta

    async def _parked_before(self, connection: Connection, fresh: Sequence[Received]) -> tuple[set[Key], list[Parked]]:
        """The keys of this batch that are blocked, and the messages of its keys that wait for a gap to close."""
        reasons = await heads(connection, self._group, {key_of(found) for found in fresh})
        gaps = [key for key, reason in reasons.items() if reason == GAP]
        waiting = await waiting_for_gap(connection, self._group, gaps, self._reader) if gaps else []
        return {key for key, reason in reasons.items() if reason != GAP}, waiting

    async def _decide(
        self, connection: Connection, ordered: Sequence[Received | Parked], blocked: set[Key], spans: BatchSpans
    ) -> tuple[list[Any], IdentityMap]:
        answers, aggregates = await self._shell.decide(connection, spans.open(ordered), in_line(ordered, blocked))
        spans.settle(answer.error if isinstance(answer, Failure) else None for answer in answers)
        return answers, aggregates

    async def _after(self, connection: Connection, ordered: Sequence[Received | Parked], answers: Sequence[Any]) -> list[Refusal]:
        """What is parked now; and of what waited for a gap, what need not wait any longer."""
        refusals = []
        for found, answer in zip(ordered, answers, strict=True):
            if isinstance(found, Parked):
                if not isinstance(answer, Failure):
                    await mark(connection, found, "replayed", by="inbox", decision="the gap closed")
            elif isinstance(answer, Failure):
                refusals.append(Refusal.of_failure(found, answer.error))
        return refusals

    def _advance(self, offsets: Mapping[TopicPartition, int], marks: Marks) -> Write:
        arguments = [
            self._group,
            [partition.topic for partition in offsets],
            [partition.partition for partition in offsets],
            list(offsets.values()),
            [orjson.dumps(marks[partition]).decode() for partition in offsets],
        ]
        return Write(ADVANCE, arguments)


def partition_of(record: KafkaRecord) -> TopicPartition:
    """Where a record lies."""
    return TopicPartition(record.topic, record.partition)


def next_offsets(read: Read) -> dict[TopicPartition, int]:
    """Where each partition goes on after these records."""
    return {partition: run[-1][0].offset + 1 for partition, run in read.items()}


def halved(read: Read) -> Sequence[Read]:
    """The two halves of it; none when there is only one record."""
    partitions = list(read.items())
    if len(partitions) > 1:
        middle = len(partitions) // 2
        return [dict(partitions[:middle]), dict(partitions[middle:])]
    [(partition, run)] = partitions
    middle = len(run) // 2
    return [{partition: run[:middle]}, {partition: run[middle:]}] if middle else []


def key_of(found: Received | Parked) -> Key:
    """What must stay in order."""
    return found.record.topic, found.record.key or b""


def in_line(ordered: Sequence[Received | Parked], blocked: set[Key]) -> Callable[[int, list[Any]], Exception | None]:
    """What refuses a message because one before it of its key has failed and holds it up."""

    def refusal(index: int, answers: list[Any]) -> Exception | None:
        if answers and isinstance(answers[-1], Failure) and holds_up(answers[-1].error):
            blocked.add(key_of(ordered[index - 1]))
        if blocked and key_of(ordered[index]) in blocked:
            return QueuedError("an earlier message of this key is set aside")
        return None

    return refusal


def outcomes_of(ordered: Sequence[Received | Parked], answers: Sequence[Any]) -> Outcomes:
    """What became of whose. What only waits, for its turn or for what it refers to, says nothing yet."""
    failed: dict[tuple[str, UUID], tuple[int, str]] = {}
    undecided: list[tuple[str, UUID]] = []
    for found, answer in zip(ordered, answers, strict=True):
        if isinstance(answer, Failure):
            place, error = (found.record.topic, found.message.tenant_id), answer.error
            if isinstance(error, QueuedError | NotYetError) or not holds_up(error):
                undecided.append(place)
            else:
                failed[place] = failed.get(place, (0, ""))[0] + 1, f"{code_of(error)}: {error}"
    decided = Counts((found.record.topic, found.message.tenant_id) for found in ordered)
    decided.subtract(undecided)
    return +decided, failed


def _outcome_of(refusal: Refusal) -> Outcomes:
    if refusal.tenant_id is None or refusal.state != "parked":
        return {}, {}
    place = (refusal.record.topic, refusal.tenant_id)
    return {place: 1}, {place: (1, f"{refusal.reason}: {refusal.detail}")}


def _given_up(record: KafkaRecord, found: Received | Invalid | None, failure: UnstorableError, *, is_behind: bool) -> Refusal:
    if not isinstance(found, Received):
        return Refusal.of_invalid(found or Invalid(record, failure.code, str(failure)))
    if is_behind:
        return Refusal.of_failure(found, QueuedError(str(failure)))
    return Refusal.of_failure(found, failure)


def _is_plain(found: Received) -> bool:
    """Whether its origin and position can be kept as a watermark."""
    fits = found.position is None or max(found.position) < MAX_POSITION
    return fits and found.origin.isascii() and found.origin.isprintable()


def holds_up(error: Exception) -> bool:
    """Whether the later messages of its key must wait: not for what will never be applied, nor for a gap, which heals."""
    return not isinstance(error, UnbelievableError) and code_of(error) != GAP


def above_watermark(received: Mapping[TopicPartition, Sequence[Received]], marks: Marks) -> list[Received]:
    """Those above the watermark of their partition and origin, which rises past them."""
    fresh = []
    for partition, run in received.items():
        seen = marks[partition]
        for found in run:
            if found.position is not None:
                if found.position <= seen.get(found.origin, NEVER):
                    DUPLICATES.labels(partition.topic).inc()
                    continue
                seen[found.origin] = found.position
            fresh.append(found)
    return fresh


def _marks(stored: str) -> dict[str, Position]:
    return {origin: (timeline, window, ordinal) for origin, (timeline, window, ordinal) in orjson.loads(stored).items()}


def _unseen(fresh: Sequence[Received], deltas: Sequence[Received], new: set[tuple[str, str]]) -> list[Received]:
    """All but the deltas whose id is not new, each id once."""
    concerned = {id(found) for found in deltas}
    kept = []
    for found in fresh:
        identity = (found.message.source, found.message.id)
        if id(found) not in concerned:
            kept.append(found)
        elif identity in new:
            new.discard(identity)
            kept.append(found)
        else:
            DUPLICATES.labels(found.record.topic).inc()
    return kept


def in_order(
    fresh: Sequence[Received], waiting: Sequence[Parked], is_delta: Callable[[Received | Parked], bool]
) -> list[Received | Parked]:
    """Our own messages as they came; foreign ones by the sequence of their key, with those that wait for a gap.

    Of a key, what is absolute goes first: it knows better than any delta with a lower sequence, and settles a gap.
    """
    if not waiting and all(found.position is not None for found in fresh):
        return [*fresh]
    foreign: dict[Key, list[Received | Parked]] = {}
    for parked in waiting:
        foreign.setdefault(key_of(parked), []).append(parked)
    for found in fresh:
        if found.position is None:
            foreign.setdefault(key_of(found), []).append(found)
    ordered: list[Received | Parked] = []
    for found in fresh:
        if found.position is not None:
            ordered.append(found)
        else:
            ordered.extend(sorted(foreign.pop(key_of(found), []), key=lambda each: (is_delta(each), each.message.sequence)))
    return ordered
