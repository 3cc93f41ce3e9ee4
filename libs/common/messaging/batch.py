"""One transaction of the inbox: fence, drop what was seen, decide in order, store, park what fails, move on.

Two kinds of order. Our own relays keep a key's order, so its messages are decided as they lie in the partition. Other
publishers may not, so theirs are decided by their sequence, together with those of the key that wait for a gap to close.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any

import orjson
from aiokafka import TopicPartition

from libs.common.clock import now
from libs.common.database import Connection, Write
from libs.common.decision import IdentityMap
from libs.common.errors import NotYetError, UnbelievableError
from libs.common.messaging.attributes import Position
from libs.common.messaging.envelope import EventTooLargeError, Invalid, KafkaRecord, Reader, Received
from libs.common.messaging.parked import GAP, Parked, QueuedError, Refusal, heads, mark, park, waiting_for_gap
from libs.common.messaging.shell import Failure, Shell
from libs.common.telemetry import Counter
from libs.common.telemetry.messages import BatchSpans

ARRIVAL_GRACE = timedelta(seconds=60)
"""How long a message may wait for something it refers to that may still be on its way."""
FEWEST_FAILURES = 20

DUPLICATES = Counter("cartwright_inbox_duplicates_total", "Messages seen before, dropped", ["topic"])

Found = tuple[KafkaRecord, Received | Invalid | None]
Read = Mapping[TopicPartition, Sequence[Found]]
"""Records as they lie in their partitions, and what was read in them."""
Marks = dict[TopicPartition, dict[str, Position]]
Key = tuple[str, bytes]

NEVER: Position = (-1, -1, -1)


class FencedError(Exception):
    """Another member of the group has moved the stored offset."""


class UnstorableError(Exception):
    """What a message leads to cannot be stored, whatever it is tried with."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.code = "event-too-large" if isinstance(cause, EventTooLargeError) else "database"


class TooManyFailuresError(Exception):
    """So many of a batch would be parked that the fault must be ours: better to stand still and shout."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What one transaction did."""

    aggregates: IdentityMap
    offsets: Mapping[TopicPartition, int]
    applied: Sequence[Received]
    refusals: Sequence[Refusal]


FENCE = """SELECT p.topic, p.part, p.next_offset, p.watermarks, EXISTS (SELECT FROM inbox_parked k
    WHERE k.consumer = p.consumer AND k.topic = p.topic AND k.state IN ('parked', 'queued')) AS has_parked
FROM inbox_position p JOIN unnest($2::text[], $3::int[]) AS w(topic, part) USING (topic, part)
WHERE p.consumer = $1 ORDER BY p.topic, p.part FOR UPDATE OF p"""

ADVANCE = """UPDATE inbox_position p SET next_offset = w.next_offset, watermarks = w.watermarks
FROM unnest($2::text[], $3::int[], $4::bigint[], $5::jsonb[]) AS w(topic, part, next_offset, watermarks)
WHERE p.consumer = $1 AND p.topic = w.topic AND p.part = w.part"""

REMEMBER = """INSERT INTO inbox_message (consumer, source, message_id, day)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::date[]) ON CONFLICT DO NOTHING RETURNING source, message_id"""


class Batch:
    """Applies batches of one consumer group."""

    def __init__(self, shell: Shell, reader: Reader, group: str, *, park_share: float, remembered_days: int) -> None:
        self._shell = shell
        self._reader = reader
        self._group = group
        self._park_share = park_share
        self._remembered_days = remembered_days

    async def apply(self, read: Read, stored: Mapping[TopicPartition, int], unstorable: Exception | None = None) -> Applied:
        """Apply what was read in one transaction. Raises FencedError unless the database stands where we think.

        With `unstorable`, the error of a message that is alone in its batch, the message is parked for that.
        """
        received = {partition: [found for _, found in run if isinstance(found, Received)] for partition, run in read.items()}
        refusals = [Refusal.of_invalid(found) for run in read.values() for _, found in run if isinstance(found, Invalid)]
        offsets = next_offsets(read)
        tenant_ids = {found.message.tenant_id for run in received.values() for found in run}
        refused = UnstorableError(unstorable) if unstorable else None
        async with BatchSpans(self._group) as spans, self._shell.database.transaction(tenant_ids) as connection:
            marks, has_parked = await self._fence(connection, offsets, stored)
            fresh = await self._remember(connection, above_watermark(received, marks), refusals)
            blocked, waiting = await self._parked_before(connection, fresh) if has_parked else (set(), [])
            ordered = in_order(fresh, waiting, self._is_delta)
            answers, aggregates = await self._decide(connection, ordered, blocked, refused, spans)
            refusals += await self._after(connection, ordered, answers)
            refused_too = [park(self._group, refusals)] if refusals else []
            await self._shell.store(connection, aggregates, *refused_too, self._advance(offsets, marks))
        applied = [found for found, answer in zip(ordered, answers, strict=True) if not isinstance(answer, Failure)]
        return Applied(aggregates, offsets, [found for found in applied if isinstance(found, Received)], refusals)

    async def _fence(
        self, connection: Connection, offsets: Mapping[TopicPartition, int], stored: Mapping[TopicPartition, int]
    ) -> tuple[Marks, bool]:
        """Lock the positions, which must be the ones we expect; answers the watermarks, and whether anything is parked."""
        topics, parts = [partition.topic for partition in offsets], [partition.partition for partition in offsets]
        rows = await connection.fetch(FENCE, self._group, topics, parts)
        found = {TopicPartition(row["topic"], row["part"]): row for row in rows}
        for partition in offsets:
            if partition not in found or found[partition]["next_offset"] != stored.get(partition):
                raise FencedError(f"{partition.topic}[{partition.partition}] is not at {stored.get(partition)} any more")
        marks = {partition: _marks(row["watermarks"]) for partition, row in found.items()}
        return marks, any(row["has_parked"] for row in rows)

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
        self,
        connection: Connection,
        ordered: Sequence[Received | Parked],
        blocked: set[Key],
        refused: Exception | None,
        spans: BatchSpans,
    ) -> tuple[list[Any], IdentityMap]:
        def refusal(index: int, answers: list[Any]) -> Exception | None:
            if answers and isinstance(answers[-1], Failure) and holds_up(answers[-1].error):
                blocked.add(key_of(ordered[index - 1]))
            if blocked and key_of(ordered[index]) in blocked:
                return QueuedError("an earlier message of this key is parked")
            return refused

        answers, aggregates = await self._shell.decide(connection, spans.open(ordered), refusal)
        spans.settle(answer.error if isinstance(answer, Failure) else None for answer in answers)
        failures = [(found, answer.error) for found, answer in zip(ordered, answers, strict=True) if isinstance(answer, Failure)]
        for found, error in failures:
            if isinstance(error, NotYetError) and now() - found.message.time < ARRIVAL_GRACE:
                raise error
        heads_failed = [error for _, error in failures if not isinstance(error, QueuedError) and holds_up(error)]
        if len(heads_failed) >= FEWEST_FAILURES and len(heads_failed) > self._park_share * len(ordered):
            first = heads_failed[0]
            raise TooManyFailuresError(f"{len(heads_failed)} of {len(ordered)} failed, first with {code_of(first)}: {first}")
        return answers, aggregates

    async def _after(self, connection: Connection, ordered: Sequence[Received | Parked], answers: Sequence[Any]) -> list[Refusal]:
        """What is parked now; and of what waited for a gap, what need not wait any longer."""
        refusals = []
        for found, answer in zip(ordered, answers, strict=True):
            if isinstance(found, Parked):
                if not isinstance(answer, Failure):
                    await mark(connection, found, "replayed", by="inbox", decision="the gap closed")
            elif isinstance(answer, Failure):
                refusals.append(Refusal.of_failure(found, answer.error, code_of(answer.error)))
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


def code_of(error: Exception) -> str:
    """The reason under which a message is parked."""
    return str(getattr(error, "code", type(error).__name__))


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
