"""Sources that are paused: what they send of a tenant is not decided, and not kept one by one any more.

A feed that has gone wrong is parked message by message until there are more of them than anybody will look at. Then the
source is paused for that tenant: its records stay in Kafka, and the row here remembers from where. To resume is to read
them again, from there to where the consumer stands, before the live ones go on; what Kafka has deleted meanwhile is told.
Only what systems outside Cartwright send can be paused.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson
import structlog
from aiokafka import TopicPartition

from libs.common.clock import new_id, rfc3339
from libs.common.database import Connection, Database, Write
from libs.common.errors import ConflictError, MalformedError, NotFoundError
from libs.common.messaging.envelope import KafkaRecord, Received
from libs.common.messaging.parked import AUDIT, storable
from libs.common.telemetry import Counter, Gauge

EVERY_SOURCE: Final = "*"
"""Stands for all sources of a tenant: a publisher may give each message another."""
OVER_BUDGET: Final = "too-many-set-aside"
BY_ITSELF: Final = "inbox"

SKIPPED = Counter("cartwright_inbox_skipped_total", "Messages of paused sources, passed over and not kept", ["topic"])
PAUSED = Gauge("cartwright_inbox_sources_paused", "Sources whose messages are passed over, for one tenant each", ["group"])

Place = tuple[UUID, str]

CLOSED = "SELECT * FROM inbox_source WHERE consumer = $1 AND state <> 'open' ORDER BY since, tenant_id, source"

SKIP = """UPDATE inbox_source s SET skipped_count = s.skipped_count + w.skipped, offsets = w.offsets || s.offsets
FROM unnest($2::uuid[], $3::text[], $4::bigint[], $5::jsonb[]) AS w(tenant_id, source, skipped, offsets)
WHERE s.consumer = $1 AND s.tenant_id = w.tenant_id AND s.source = w.source"""

PAUSE = """INSERT INTO inbox_source AS s (consumer, tenant_id, source, state, reason, decided_by)
VALUES ($1, $2, $3, 'paused', $4, $5) ON CONFLICT (consumer, tenant_id, source) DO UPDATE
SET state = 'paused', reason = $4, decided_by = $5,
    since = CASE s.state WHEN 'open' THEN now() ELSE s.since END,
    skipped_count = CASE s.state WHEN 'open' THEN 0 ELSE s.skipped_count END,
    missed_count = CASE s.state WHEN 'open' THEN 0 ELSE s.missed_count END
WHERE s.state <> 'paused' RETURNING true"""

RESUME = """UPDATE inbox_source SET state = CASE offsets WHEN '{}' THEN 'open' ELSE 'resuming' END, decided_by = $4
WHERE consumer = $1 AND tenant_id = $2 AND source = $3 AND state = 'paused' RETURNING state"""

OVER = """SELECT tenant_id, source, count(*) AS messages FROM inbox_parked
WHERE consumer = $1 AND tenant_id = ANY ($2::uuid[]) AND topic = ANY ($3::text[])
    AND source IS NOT NULL AND state IN ('rejected', 'waiting', 'parked', 'queued')
GROUP BY GROUPING SETS ((tenant_id, source), (tenant_id)) HAVING count(*) > $4 * (1 + GROUPING(source))"""
"""All sources of a tenant together have twice the budget of one."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Closed:
    """One source of one tenant that is not open."""

    tenant_id: UUID
    source: str
    state: str
    offsets: Mapping[str, int]
    """By `topic:partition`, the first record that was passed over and has not been read again."""

    def passes_over(self, place: str) -> bool:
        """Whether its messages in this partition are not to be decided."""
        return self.state == "paused" or place in self.offsets


def place_of(partition: TopicPartition) -> str:
    """How a partition is named in the row."""
    return f"{partition.topic}:{partition.partition}"


def closed_of(row: asyncpg.Record) -> Closed:
    """A row, read."""
    return Closed(row["tenant_id"], row["source"], row["state"], orjson.loads(row["offsets"]))


@dataclass(slots=True)
class PassingOver:
    """Passes over what closed sources sent, and counts it."""

    group: str
    foreign: Collection[str]
    closed: Mapping[Place, Closed]
    counts: dict[Place, int] = field(default_factory=dict)
    first: dict[Place, dict[str, int]] = field(default_factory=dict)

    @classmethod
    async def begun(cls, connection: Connection, group: str, foreign: Collection[str]) -> "PassingOver":
        """With what is closed just now.

        Under the lock of the positions, under which a source is opened again too: nothing is decided before what was
        passed over, and nothing is passed over after that.
        """
        rows = [closed_of(row) for row in await connection.fetch(CLOSED, group)]
        return cls(group, foreign, {(each.tenant_id, each.source): each for each in rows})

    def passes(self, record: KafkaRecord, tenant_id: UUID | None, source: str | None) -> bool:
        """Whether this one is passed over."""
        if record.topic not in self.foreign or tenant_id is None:
            return False
        where = f"{record.topic}:{record.partition}"
        for place in ((tenant_id, storable(source) or ""), (tenant_id, EVERY_SOURCE)):
            if place in self.closed and self.closed[place].passes_over(where):
                self.counts[place] = self.counts.get(place, 0) + 1
                self.first.setdefault(place, {}).setdefault(where, record.offset)
                SKIPPED.labels(record.topic).inc()
                return True
        return False

    def kept(self, fresh: Sequence[Received]) -> list[Received]:
        """The messages that are not passed over."""
        return [found for found in fresh if not self.passes(found.record, found.message.tenant_id, found.message.source)]

    def writes(self) -> Sequence[Write]:
        """What remembers from where, and how many."""
        if not self.counts:
            return []
        places = list(self.counts)
        arguments = [
            self.group,
            [tenant_id for tenant_id, _ in places],
            [source for _, source in places],
            [self.counts[place] for place in places],
            [orjson.dumps(self.first[place]).decode() for place in places],
        ]
        return [Write(SKIP, arguments)]


class Sources:
    """What operators, and the budget, do about the sources of one consumer. Every action is audited."""

    def __init__(self, database: Database, group: str, *, foreign: Collection[str], budget: int) -> None:
        self._database = database
        self._group = group
        self._foreign = list(foreign)
        self._budget = budget
        self._concerned: set[UUID] = set()

    def noted(self, tenant_id: UUID | None) -> None:
        """A message of this tenant was set aside: look soon whether there are too many."""
        if tenant_id is not None:
            self._concerned.add(tenant_id)

    async def keep_within_budget(self) -> None:
        """Pause the sources of which more is set aside than anybody will look at."""
        if self._concerned:
            concerned, self._concerned = self._concerned, set()
            async with self._database.acquire() as connection:
                rows = await connection.fetch(OVER, self._group, list(concerned), self._foreign, self._budget)
            for row in rows:
                source, reason = row["source"], f"{OVER_BUDGET}: {row['messages']} of this tenant's messages wait for a decision"
                await self._pause(row["tenant_id"], EVERY_SOURCE if source is None else source, reason, BY_ITSELF)
        async with self._database.acquire() as connection:
            PAUSED.labels(self._group).set(len(await connection.fetch(CLOSED, self._group)))

    async def search(self) -> list[dict[str, Any]]:
        """Those that are not open, the oldest first."""
        async with self._database.acquire() as connection:
            return [_summary(row) for row in await connection.fetch(CLOSED, self._group)]

    async def pause(self, tenant_id: UUID, source: str, *, actor: str, reason: str) -> dict[str, Any]:
        """Pass over what it sends of this tenant, from now on. Raises ConflictError when it is paused."""
        if not reason.strip() or not source.strip():
            raise MalformedError("reason-missing", "say which source is paused, and why")
        if not self._foreign:
            raise ConflictError("nothing-foreign", "this consumer reads nothing from outside")
        source = storable(source) or ""
        if not await self._pause(tenant_id, source, storable(reason) or "", actor):
            raise ConflictError("already-paused", f"{source} is paused for this tenant")
        return {"tenant_id": str(tenant_id), "source": source, "state": "paused"}

    async def _pause(self, tenant_id: UUID, source: str, reason: str, actor: str) -> bool:
        async with self._database.transaction([]) as connection:
            paused: bool | None = await connection.fetchval(PAUSE, self._group, tenant_id, source, reason, actor)
            if paused:
                target = f"{self._group}:{tenant_id}:{source}"
                await connection.execute(AUDIT, new_id(), actor, "source.pause", target, reason)
        if paused:
            log.critical(
                "inbox.source_paused",
                group=self._group,
                tenant_id=str(tenant_id),
                source=source,
                reason=reason,
                action="stop the feed, decide what is parked, then ./cartwright sources resume: the rest stays in Kafka",
            )
        return bool(paused)

    async def resume(self, tenant_id: UUID, source: str, *, actor: str) -> dict[str, Any]:
        """Read what was passed over again, and then go on. A worker does it; `search` shows how far it is."""
        source = storable(source) or ""
        async with self._database.transaction([]) as connection:
            state = await connection.fetchval(RESUME, self._group, tenant_id, source, actor)
            if state is None:
                raise NotFoundError("source-not-paused", f"{source} is not paused for this tenant")
            target = f"{self._group}:{tenant_id}:{source}"
            await connection.execute(AUDIT, new_id(), actor, "source.resume", target, "asked for by an operator")
        return {"tenant_id": str(tenant_id), "source": source, "state": state}


def _summary(row: asyncpg.Record) -> dict[str, Any]:
    return {
        "consumer": row["consumer"],
        "tenant_id": str(row["tenant_id"]),
        "source": row["source"],
        "state": row["state"],
        "since": rfc3339(row["since"]),
        "reason": row["reason"],
        "decided_by": row["decided_by"],
        "skipped_count": row["skipped_count"],
        "missed_count": row["missed_count"],
        "offsets": orjson.loads(row["offsets"]),
    }
