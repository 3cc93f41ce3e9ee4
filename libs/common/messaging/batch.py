"""One transaction of the inbox: fence, drop what was seen, decide in order, store, park what fails, move on."""

from collections import Counter as Counts
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from aiokafka import TopicPartition

from libs.common.clock import PLATFORM, now
from libs.common.database import Connection, Write
from libs.common.decision import IdentityMap
from libs.common.errors import ConflictError, ErasedError, NotYetError, UnbelievableError
from libs.common.messaging.brake import Brake
from libs.common.messaging.envelope import EventTooLargeError, Invalid, KafkaRecord, Reader, Received
from libs.common.messaging.ordering import (
    Key,
    Marks,
    Read,
    above_watermark,
    in_order,
    key_of,
    marks_in,
    partition_of,
    unseen,
)
from libs.common.messaging.parked import (
    GAP,
    Parked,
    QueuedError,
    Refusal,
    code_of,
    heads,
    mark,
    park,
    source_of,
    waiting_for_gap,
    whose,
)
from libs.common.messaging.shell import Failure, Shell, is_dropped
from libs.common.messaging.sources import (
    BUDGET,
    Cuts,
    OverBudgetError,
    SortedOut,
    Source,
    Sources,
    Stretch,
    stretches_of,
)
from libs.common.telemetry import Counter
from libs.common.telemetry.messages import BatchSpans

Outcomes = tuple[Mapping[tuple[str, UUID], int], Mapping[tuple[str, UUID], tuple[int, str]]]
"""By topic and tenant: how many messages were decided; and how many failed, with one of the errors."""

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
    held_back: Sequence[Stretch] = ()
    """What was passed over because its source is paused."""
    paused: Collection[Source] = ()
    """The sources that are paused since."""


@dataclass(frozen=True, slots=True)
class Fence:
    """What the positions say that are locked."""

    marks: Marks
    has_parked: bool
    has_paused: bool


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of the messages."""

    ordered: Sequence[Received | Parked]
    answers: Sequence[Any]
    aggregates: IdentityMap
    refusals: Sequence[Refusal]
    outcomes: Outcomes

    @property
    def applied(self) -> list[Received]:
        """The messages that were decided now."""
        kept = [found for found, answer in zip(self.ordered, self.answers, strict=True) if not isinstance(answer, Failure)]
        return [found for found in kept if isinstance(found, Received)]


DROPPED = Counter("cartwright_inbox_dropped_total", "Messages that were about tenants of which nothing is kept", ["group"])

FENCE = "SELECT * FROM inbox_fence($1, $2, $3, $4)"

ADVANCE = """UPDATE inbox_position p SET next_offset = w.next_offset, watermarks = w.watermarks
FROM unnest($2::text[], $3::int[], $4::bigint[], $5::jsonb[]) AS w(topic, part, next_offset, watermarks)
WHERE p.consumer = $1 AND p.topic = w.topic AND p.part = w.part"""

REMEMBER = """INSERT INTO inbox_message (consumer, source, message_id, day)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::date[]) ON CONFLICT DO NOTHING RETURNING source, message_id"""

# What another cell is to decide is not known here: when its tenant comes, it may have to be decided after all.
REMEMBER_OURS = """INSERT INTO inbox_message (consumer, source, message_id, day)
SELECT $1, w.source, w.message_id, w.day FROM unnest($2::text[], $3::text[], $4::date[], $5::uuid[])
    AS w(source, message_id, day, tenant_id)
WHERE NOT EXISTS (SELECT FROM erasure e WHERE e.tenant_id = w.tenant_id AND e.cell IS NOT NULL)
ON CONFLICT DO NOTHING RETURNING source, message_id"""


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
        budget: int = BUDGET,
    ) -> None:
        self._shell = shell
        self._reader = reader
        self._group = group
        self._brake = Brake(share=park_share, foreign=foreign)
        self._remembered_days = remembered_days
        self.sources = Sources(group, budget=budget)

    async def apply(self, read: Read, stored: Mapping[TopicPartition, int]) -> Applied:
        """Apply what was read in one transaction. Raises FencedError unless the database stands where we think."""
        cuts: Cuts = {}
        while True:
            try:
                return await self._apply(read, stored, cuts)
            except OverBudgetError as over:  # each time there is less of it that is not held back
                cuts = {**cuts, **over.cuts}

    async def _apply(self, read: Read, stored: Mapping[TopicPartition, int], cuts: Cuts) -> Applied:
        offsets, (tenant_ids, doubtful) = next_offsets(read), tenants_of(read)
        async with BatchSpans(self._group) as spans, self._shell.database.transaction(tenant_ids) as connection:
            fence = await self._fence(connection, offsets, stored, tenant_ids)
            unknown = await self._shell.unknown(connection, doubtful)
            found = await self.sources.sort_out(connection, read, unknown, cuts, some_are_paused=fence.has_paused)
            held_back = stretches_of(found, read, fence.marks)
            decided = await self.decided(connection, found, fence, spans)
            self._brake.judge(*decided.outcomes)
            await self.sources.demand_room(connection, decided.refusals)
            paused = {source for source, _ in cuts}
            writes = [park(self._group, decided.refusals)] if decided.refusals else []
            writes += [self.sources.pause(paused)] if paused else []
            writes += [self.sources.keep_for_later(found.moving)] if found.moving else []
            writes += [self.sources.hold_back(held_back)] if held_back else []
            await self._shell.store(connection, decided.aggregates, *writes, self._advance(offsets, fence.marks), ends=True)
        self._brake.settled(*decided.outcomes)
        return Applied(decided.aggregates, offsets, decided.applied, decided.refusals, held_back, paused)

    async def decided(self, connection: Connection, found: SortedOut, fence: Fence, spans: BatchSpans) -> Decided:
        """Everything that is new, decided in order; of what is refused, who has to be told."""
        received = {partition: [each for _, each in run if isinstance(each, Received)] for partition, run in found.rest.items()}
        invalid = [each for run in found.rest.values() for _, each in run if isinstance(each, Invalid)]
        refusals = [Refusal.of_invalid(each) for each in invalid]
        fresh = await self._remember(connection, above_watermark(received, fence.marks), refusals)
        blocked, waiting = await self._parked_before(connection, fresh) if fence.has_parked else (set(), [])
        ordered = in_order(fresh, waiting, self._is_delta)
        answers, aggregates = await self._decide(connection, ordered, blocked, spans)
        refusals += await self._after(connection, ordered, answers)
        refusals = [each.unless_in(found.unknown) for each in await self._of_the_living(connection, refusals)]
        return Decided(ordered, answers, aggregates, refusals, outcomes_of(ordered, answers))

    async def _of_the_living(self, connection: Connection, refusals: Sequence[Refusal]) -> list[Refusal]:
        """Those that are kept: of a tenant that is erased, or in another cell, nobody keeps what was refused either."""
        gone = await self._shell.gone(connection, {each.tenant_id for each in refusals if each.tenant_id})
        kept = [each for each in refusals if each.tenant_id not in gone]
        DROPPED.labels(self._group).inc(len(refusals) - len(kept))
        return kept

    async def give_up(self, read: Read, stored: Mapping[TopicPartition, int], error: Exception) -> Applied:
        """Set aside the one record that is read, because of this error. Nothing of it is used that could bring it about again."""
        [[(record, found)]] = read.values()
        offsets, failure = next_offsets(read), UnstorableError(error)
        named = tenants_of({partition_of(record): [(record, found or Invalid(record, failure.code, str(failure)))]})[0]
        async with self._shell.database.transaction(named) as connection:
            fence = await self._fence(connection, offsets, stored, named)
            key, before = (record.topic, record.key or b""), dict(fence.marks[partition_of(record)])
            reason = (await heads(connection, self._group, {key})).get(key) if fence.has_parked else None
            refusal = given_up(record, found, failure, is_behind=reason is not None and reason != GAP)
            kept = await self._of_the_living(connection, [refusal])
            outcomes = _outcome_of(refusal) if kept else ({}, {})
            self._brake.judge(*outcomes)
            if isinstance(found, Received) and _is_plain(found):
                above_watermark({partition_of(record): [found]}, fence.marks)
            if is_beyond := bool(kept) and await self.sources.is_spent(connection, refusal):
                source = Source(refusal.tenant_id or PLATFORM, source_of(record))
                stretch = Stretch(source, partition_of(record), record.offset, record.offset, 1, before)
                writes = [self.sources.pause([source]), self.sources.hold_back([stretch])]
            else:
                writes = [park(self._group, kept)] if kept else []
            await self._shell.store(connection, IdentityMap(), *writes, self._advance(offsets, fence.marks), ends=True)
        self._brake.settled(*outcomes)
        if is_beyond:
            return Applied(IdentityMap(), offsets, [], [], [stretch], [source])
        return Applied(IdentityMap(), offsets, [], kept)

    async def _fence(
        self,
        connection: Connection,
        offsets: Mapping[TopicPartition, int],
        stored: Mapping[TopicPartition, int],
        tenant_ids: Collection[UUID],
    ) -> Fence:
        """Lock the positions, which must be the ones we expect."""
        topics, parts = [partition.topic for partition in offsets], [partition.partition for partition in offsets]
        rows = await connection.fetch(FENCE, self._group, topics, parts, list(tenant_ids))
        found = {TopicPartition(row["topic"], row["part"]): row for row in rows}
        for partition in offsets:
            if partition not in found or found[partition]["next_offset"] != stored.get(partition):
                raise FencedError(f"{partition.topic}[{partition.partition}] is not at {stored.get(partition)} any more")
        marks = {partition: marks_in(row["watermarks"]) for partition, row in found.items()}
        has_parked, has_paused = (any(row[name] for row in rows) for name in ("has_parked", "has_paused"))
        return Fence(marks, has_parked, has_paused)

    async def _remember(self, connection: Connection, fresh: Sequence[Received], refusals: list[Refusal]) -> list[Received]:
        """Drop the foreign deltas whose ids were seen before, and refuse those too old to know."""
        deltas = [found for found in fresh if found.position is None and self._is_delta(found)]
        if not deltas:
            return list(fresh)
        oldest = now() - timedelta(days=self._remembered_days)
        why = f"older than the {self._remembered_days} days that ids are kept for"
        refusals.extend(Refusal.rejected(found, "too-old", why) for found in deltas if found.message.time < oldest)
        young = [found.message for found in deltas if found.message.time >= oldest]
        arguments = [
            self._group,
            [message.source for message in young],
            [message.id for message in young],
            [message.time.astimezone(UTC).date() for message in young],
        ]
        if self._shell.cell is None:
            rows = await connection.fetch(REMEMBER, *arguments)
        else:
            rows = await connection.fetch(REMEMBER_OURS, *arguments, [message.tenant_id for message in young])
        return unseen(fresh, deltas, {(row["source"], row["message_id"]) for row in rows})

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
            elif isinstance(answer, Failure) and not is_dropped(answer):
                refusals.append(Refusal.of_failure(found, answer.error))
        DROPPED.labels(self._group).inc(sum(map(is_dropped, answers)))
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


def tenants_of(read: Read) -> tuple[set[UUID], set[UUID]]:
    """The tenants that a transaction acts for; and those among them that only unreadable records speak of.

    What is refused is listed under the tenant that it names; if anything is, the platform's are looked at too.
    """
    received = {found.message.tenant_id for run in read.values() for _, found in run if isinstance(found, Received)}
    refused = {whose(record) for run in read.values() for record, found in run if not isinstance(found, Received) and found}
    named = {tenant_id for tenant_id in refused if tenant_id is not None}
    return received | named | ({PLATFORM} if refused else set()), named - received


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


def given_up(record: KafkaRecord, found: Received | Invalid | None, failure: UnstorableError, *, is_behind: bool) -> Refusal:
    """How one record is set aside because of an error."""
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
    return not isinstance(error, UnbelievableError | ErasedError) and code_of(error) != GAP
