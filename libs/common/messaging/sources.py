"""How much one source may have refused, and what becomes of it beyond that: it is paused, for that tenant and consumer alone.

A source is whoever an envelope says it comes from, for one tenant; what names no tenant that can be believed counts for
its source under the platform. Messages of a paused source are neither decided nor kept one by one. They lie in Kafka, and
of each partition the stretch is remembered in which they lie, in the transaction that moves past them (ADR 0023).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from aiokafka import TopicPartition

from libs.common.clock import PLATFORM
from libs.common.database import Connection, Write
from libs.common.messaging.attributes import Position
from libs.common.messaging.envelope import Invalid, Received
from libs.common.messaging.ordering import NEVER, Marks, Read, marks_in, partition_of
from libs.common.messaging.parked import Refusal, source_of, whose

BUDGET = 1_000
"""So many undecided messages one source of one tenant may have set aside."""
AUTOMATIC = "inbox"
ANY = "*"
"""In the place of a source's name: whatever comes of a tenant, who is on its way here from another cell. No envelope says it."""
MOVING = "move"
"""Who paused what comes of such a tenant."""


class Source(NamedTuple):
    """Who sends, and for whom."""

    tenant_id: UUID
    """The platform's id where no tenant can be believed."""
    name: str


Place = tuple[Source, TopicPartition]
Cuts = Mapping[Place, int]
"""From which offset on a source is held back that was not paused before."""

HELD = """SELECT s.tenant_id, s.source, s.state, r.topic, r.part FROM inbox_source s
LEFT JOIN inbox_source_range r ON (r.consumer, r.tenant_id, r.source) = (s.consumer, s.tenant_id, s.source)
    AND r.first_off <= r.last_off
WHERE s.consumer = $1 AND s.state <> 'live' FOR SHARE OF s"""

# What queues behind a message that only waits will be decided by itself, so it does not count.
SPENT = f"""SELECT w.tenant_id, w.source, w.waits, (SELECT count(*) FROM (SELECT FROM inbox_parked p
    WHERE p.consumer = $1 AND p.source = w.source AND coalesce(p.tenant_id, '{PLATFORM}'::uuid) = w.tenant_id
        AND p.state IN ('rejected', 'waiting', 'parked', 'queued')
        AND (p.state IN ('rejected', 'parked') OR (p.state = 'queued' AND NOT w.waits)) LIMIT $4) AS counted) AS spent
FROM (SELECT t.tenant_id, t.source, EXISTS (SELECT FROM inbox_parked p
    WHERE p.consumer = $1 AND p.source = t.source AND coalesce(p.tenant_id, '{PLATFORM}'::uuid) = t.tenant_id
        AND p.state = 'waiting') AS waits FROM unnest($2::uuid[], $3::text[]) AS t(tenant_id, source)) AS w"""  # noqa: S608 - an id of ours

KEEP = """INSERT INTO inbox_source (consumer, tenant_id, source, state, reason, paused_by)
SELECT $1, w.tenant_id, w.source, 'paused', $4, $5 FROM unnest($2::uuid[], $3::text[]) AS w(tenant_id, source)
ON CONFLICT (consumer, tenant_id, source)
DO UPDATE SET state = 'paused', reason = excluded.reason, paused_by = excluded.paused_by, paused_at = now()"""
PAUSE = KEEP.replace("ON CONFLICT", "WHERE NOT EXISTS (SELECT FROM erasure e WHERE e.tenant_id = w.tenant_id)\nON CONFLICT", 1)

# One that has ended begins anew.
HOLD_BACK = """INSERT INTO inbox_source_range AS r
    (consumer, tenant_id, source, topic, part, first_off, last_off, records, watermarks)
SELECT $1, * FROM unnest($2::uuid[], $3::text[], $4::text[], $5::int[], $6::bigint[], $7::bigint[], $8::bigint[], $9::jsonb[])
ON CONFLICT (consumer, tenant_id, source, topic, part) DO UPDATE SET
    first_off = CASE WHEN r.first_off > r.last_off THEN excluded.first_off ELSE least(r.first_off, excluded.first_off) END,
    last_off = CASE WHEN r.first_off > r.last_off THEN excluded.last_off ELSE greatest(r.last_off, excluded.last_off) END,
    watermarks = CASE WHEN r.first_off > r.last_off THEN excluded.watermarks ELSE r.watermarks END,
    records = CASE WHEN r.first_off > r.last_off THEN 0 ELSE r.records END + excluded.records"""


LOCK_STRETCH = """SELECT r.first_off, r.last_off, r.records, r.watermarks
FROM inbox_source_range r JOIN inbox_source s USING (consumer, tenant_id, source)
WHERE r.consumer = $1 AND r.tenant_id = $2 AND r.source = $3 AND r.topic = $4 AND r.part = $5 AND s.state = 'resuming'
    AND r.first_off <= r.last_off
FOR UPDATE OF r"""

KNOWN = "SELECT off FROM inbox_parked WHERE consumer = $1 AND topic = $2 AND part = $3 AND off = ANY ($4::bigint[])"

SHORTEN = """UPDATE inbox_source_range SET first_off = $6, watermarks = $7, records = greatest(0, records - $8)
WHERE consumer = $1 AND tenant_id = $2 AND source = $3 AND topic = $4 AND part = $5"""

END = """UPDATE inbox_source_range SET first_off = last_off + 1, records = 0
WHERE consumer = $1 AND tenant_id = $2 AND source = $3 AND topic = $4 AND part = $5"""


class OverBudgetError(Exception):
    """A source has more refused than it may: this batch is decided again without what goes beyond."""

    def __init__(self, cuts: Cuts) -> None:
        super().__init__(f"{len({source for source, _ in cuts})} sources have more refused than they may")
        self.cuts = cuts


@dataclass(frozen=True, slots=True)
class Stretch:
    """Where, in one partition, messages of a paused source lie that were not decided."""

    source: Source
    partition: TopicPartition
    first: int
    last: int
    records: int
    watermarks: Mapping[str, Position] = field(default_factory=dict)
    """What of each origin had been seen before the first of them."""


@dataclass(frozen=True, slots=True)
class SortedOut:
    """A batch without what belongs to paused sources."""

    rest: Read
    held_back: Mapping[Place, Sequence[int]] = field(default_factory=dict)
    """The offsets of what is held back."""
    unknown: Collection[UUID] = ()
    """Tenants that only unreadable records speak of."""
    moving: Collection[Source] = ()
    """What is held back because its tenant is on its way here."""


class Sources:
    """The sources of one consumer."""

    def __init__(self, group: str, *, budget: int = BUDGET) -> None:
        self._group = group
        self._budget = budget

    async def sort_out(
        self, connection: Connection, read: Read, unknown: Collection[UUID], cuts: Cuts, *, some_are_paused: bool
    ) -> SortedOut:
        """Take out what belongs to sources that are paused."""
        rows = await connection.fetch(HELD, self._group) if some_are_paused else []
        if not rows and not cuts:
            return SortedOut(read, unknown=unknown)
        paused = {Source(row["tenant_id"], row["source"]) for row in rows if row["state"] == "paused"}
        behind = {
            (Source(row["tenant_id"], row["source"]), TopicPartition(row["topic"], row["part"]))
            for row in rows
            if row["topic"] is not None
        }
        arriving = {source.tenant_id for source in paused if source.name == ANY}
        held_back: dict[Place, list[int]] = {}
        rest: dict[TopicPartition, Any] = {}
        for partition, run in read.items():
            rest[partition] = kept = []
            for record, found in run:
                place = (holder_of(found, unknown), partition) if found is not None else None
                if place and (
                    place[0] in paused
                    or place in behind
                    or place[0].tenant_id in arriving
                    or cuts.get(place, record.offset + 1) <= record.offset
                ):
                    held_back.setdefault(place, []).append(record.offset)
                else:
                    kept.append((record, found))
        moving = {source for source, _ in held_back if source.tenant_id in arriving} - paused
        return SortedOut(rest, held_back, unknown, moving)

    async def demand_room(self, connection: Connection, refusals: Sequence[Refusal]) -> None:
        """Raises OverBudgetError when a source would have more set aside than it may, with what goes beyond."""
        counted = [refusal for refusal in refusals if refusal.state in ("rejected", "parked", "queued")]
        if not counted:
            return
        spent = await self._spent(connection, set(map(_holder, counted)))
        wait = {source for source, (_, waits) in spent.items() if waits} | {
            _holder(each) for each in refusals if each.state == "waiting"
        }
        lasting: dict[Source, list[tuple[TopicPartition, int]]] = {}
        for refusal in counted:
            source = _holder(refusal)
            if refusal.state != "queued" or source not in wait:
                lasting.setdefault(source, []).append((partition_of(refusal.record), refusal.record.offset))
        beyond = {source: sorted(places)[max(0, self._budget - spent[source][0]) :] for source, places in lasting.items()}
        cuts: dict[Place, int] = {}
        for source, places in beyond.items():
            for partition, offset in places:
                cuts.setdefault((source, partition), offset)
        if cuts:
            raise OverBudgetError(cuts)

    async def is_spent(self, connection: Connection, refusal: Refusal) -> bool:
        """Whether this one goes beyond what its source may have set aside."""
        source = _holder(refusal)
        return (await self._spent(connection, [source]))[source][0] >= self._budget

    async def _spent(self, connection: Connection, sources: Iterable[Source]) -> dict[Source, tuple[int, bool]]:
        """Of each how much is set aside for good, and whether more of it only waits."""
        wanted = sorted(sources)
        tenant_ids, names = [each.tenant_id for each in wanted], [each.name for each in wanted]
        rows = await connection.fetch(SPENT, self._group, tenant_ids, names, self._budget + 1)
        return {Source(row["tenant_id"], row["source"]): (row["spent"], row["waits"]) for row in rows}

    async def lock(self, connection: Connection, stretch: Stretch) -> Stretch | None:
        """The stretch as it is now, locked; None if somebody else has shortened it, or its source is paused."""
        place = (self._group, *stretch.source, *stretch.partition)
        row = await connection.fetchrow(LOCK_STRETCH, *place)
        if row is None or row["first_off"] != stretch.first:
            return None
        return Stretch(
            stretch.source, stretch.partition, row["first_off"], row["last_off"], row["records"], marks_in(row["watermarks"])
        )

    async def known(self, connection: Connection, partition: TopicPartition, offsets: Sequence[int]) -> set[int]:
        """Those of these offsets whose records have been set aside before, whatever became of them."""
        return {row["off"] for row in await connection.fetch(KNOWN, self._group, *partition, offsets)}

    def shorten(self, stretch: Stretch, upto: int, seen: Mapping[str, Position], records: int) -> Write:
        """What moves the beginning of a stretch, or ends it."""
        place = [self._group, *stretch.source, *stretch.partition]
        if upto > stretch.last:
            return Write(END, place)
        return Write(SHORTEN, [*place, upto, orjson.dumps(seen).decode(), records])

    def pause(self, sources: Collection[Source], *, reason: str | None = None, by: str = AUTOMATIC) -> Write:
        """What pauses these from now on."""
        why = reason or f"{self._budget} of its messages are set aside and not decided"
        return Write(PAUSE, self._pausing(sources, why, by))

    def _pausing(self, sources: Collection[Source], why: str, by: str) -> list[Any]:
        wanted = sorted(sources)
        return [self._group, [each.tenant_id for each in wanted], [each.name for each in wanted], why, by]

    def keep_for_later(self, sources: Collection[Source]) -> Write:
        """What pauses these until their tenant is here."""
        return Write(KEEP, self._pausing(sources, "its tenant is on its way here", MOVING))

    def hold_back(self, stretches: Sequence[Stretch]) -> Write:
        """What remembers where these lie."""
        arguments = [
            self._group,
            [each.source.tenant_id for each in stretches],
            [each.source.name for each in stretches],
            [each.partition.topic for each in stretches],
            [each.partition.partition for each in stretches],
            [each.first for each in stretches],
            [each.last for each in stretches],
            [each.records for each in stretches],
            [orjson.dumps(each.watermarks).decode() for each in stretches],
        ]
        return Write(HOLD_BACK, arguments)


def stretches_of(found: SortedOut, read: Read, marks: Marks) -> list[Stretch]:
    """Where what is held back lies. `marks`: as they were before this batch."""
    made = []
    for (source, partition), offsets in sorted(found.held_back.items()):
        seen = dict(marks[partition])
        for record, message in read[partition]:
            if record.offset >= offsets[0]:
                break
            if isinstance(message, Received) and message.position is not None:
                seen[message.origin] = max(message.position, seen.get(message.origin, NEVER))
        made.append(Stretch(source, partition, offsets[0], offsets[-1], len(offsets), seen))
    return made


def holder_of(found: Received | Invalid, unknown: Collection[UUID] = ()) -> Source:
    """Which source a record counts for."""
    tenant_id = found.message.tenant_id if isinstance(found, Received) else whose(found.record)
    if tenant_id is None or (isinstance(found, Invalid) and tenant_id in unknown):
        tenant_id = PLATFORM
    return Source(tenant_id, source_of(found.record))


def _holder(refusal: Refusal) -> Source:
    return Source(refusal.tenant_id or PLATFORM, source_of(refusal.record))
