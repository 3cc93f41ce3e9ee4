"""The doors of a tenant in two databases of a service: which of them is open, and from which message on.

What is in one database decides nothing for the other, so each step is one transaction under the lock of the positions, which
every worker takes for every batch: a message is decided on one side of it or on the other. Each may be taken again.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from deploy.cells.errors import MoveError
from libs.common.database import Connection
from libs.common.messaging.sources import ANY, MOVING, Source, Sources
from libs.common.tenancy import ELSEWHERE

AT_ONCE: Final = 1_000
"""Rows deleted with one transaction."""
_STAYS: Final = frozenset({"audit_entry", "audit_head", "departure", "inbox_message", "tenant"})
"""The audit trail is never taken back, from nowhere. What it proves went along."""


class Place(NamedTuple):
    """A partition, as one consumer group reads it."""

    consumer: str
    topic: str
    part: int


Positions = Mapping[Place, int]

_LOCKED: Final = """SELECT consumer, topic, part, next_offset, watermarks FROM inbox_position
ORDER BY consumer, topic, part FOR UPDATE"""
_READ: Final = "SELECT consumer, topic, part, next_offset FROM inbox_position"
_RELEASE: Final = f"""WITH gone AS (DELETE FROM inbox_source WHERE tenant_id = $1 AND paused_by = '{MOVING}')
DELETE FROM inbox_source_range r USING inbox_source s WHERE r.tenant_id = $1 AND s.tenant_id = $1
    AND (s.consumer, s.source) = (r.consumer, r.source) AND s.paused_by = '{MOVING}'"""  # noqa: S608 - constants of ours
_STANDS: Final = """SELECT (to_jsonb(t) || jsonb_build_object('cell', $2::text))::text FROM tenant t
WHERE tenant_id = $1 AND cell = $3 FOR UPDATE"""
_LEAVE: Final = f"UPDATE tenant SET cell = $2, status = '{ELSEWHERE}', version = version + 1 WHERE tenant_id = $1"  # noqa: S608
_STOP: Final = f"UPDATE inbox_source SET state = 'paused', paused_by = '{MOVING}' WHERE tenant_id = $1 AND state = 'resuming'"  # noqa: S608
_DEPART: Final = """INSERT INTO departure (tenant_id, cell, tenant, positions, sources, ranges) SELECT $1, $2, $3, $4,
    (SELECT coalesce(jsonb_agg(s), '[]') FROM inbox_source s WHERE s.tenant_id = $1 AND s.state <> 'live'),
    (SELECT coalesce(jsonb_agg(r), '[]') FROM inbox_source_range r WHERE r.tenant_id = $1 AND r.first_off <= r.last_off)
ON CONFLICT (tenant_id) DO UPDATE SET cell = excluded.cell, departed_at = now(), tenant = excluded.tenant,
    positions = excluded.positions, sources = excluded.sources, ranges = excluded.ranges"""
_DEPARTURE: Final = "SELECT cell, tenant, positions, sources, ranges FROM departure WHERE tenant_id = $1"

# Whoever decides looks into one of these first, and holds its lock to the end: so these may not have seen that it left.
_DECIDING: Final = """SELECT DISTINCT virtualtransaction || ' ' || pid FROM pg_locks
WHERE locktype = 'relation' AND relation IN ('erasure'::regclass, 'tenant'::regclass) AND pid <> pg_backend_pid()
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""

# Of what was held back it takes what comes after its departure, with what its old cell had seen by then.
_SHORTEN: Final = """UPDATE inbox_source_range r SET first_off = p.next_offset, watermarks = p.watermarks
FROM jsonb_to_recordset($2) AS p(consumer text, topic text, part int, next_offset bigint, watermarks jsonb)
WHERE r.tenant_id = $1 AND (r.consumer, r.topic, r.part) = (p.consumer, p.topic, p.part)
    AND r.first_off <= r.last_off AND r.first_off < p.next_offset"""
_SOURCES: Final = """INSERT INTO inbox_source SELECT s.* FROM jsonb_populate_recordset(NULL::inbox_source, $1) s
ON CONFLICT (tenant_id, consumer, source)
DO UPDATE SET state = excluded.state, reason = excluded.reason, paused_by = excluded.paused_by, paused_at = excluded.paused_at"""
_RANGES: Final = """INSERT INTO inbox_source_range AS r SELECT a.* FROM jsonb_populate_recordset(NULL::inbox_source_range, $1) a
ON CONFLICT (tenant_id, consumer, source, topic, part) DO UPDATE SET first_off = excluded.first_off,
    last_off = CASE WHEN r.first_off > r.last_off THEN excluded.last_off ELSE greatest(r.last_off, excluded.last_off) END,
    records = excluded.records + CASE WHEN r.first_off > r.last_off THEN 0 ELSE r.records END, watermarks = excluded.watermarks"""
_RESUME: Final = f"""UPDATE inbox_source SET state = 'resuming'
WHERE tenant_id = $1 AND paused_by = '{MOVING}' AND source <> '{ANY}' AND state = 'paused'"""  # noqa: S608
_LET_GO: Final = f"DELETE FROM inbox_source WHERE tenant_id = $1 AND source = '{ANY}'"  # noqa: S608
_ARRIVE: Final = """INSERT INTO tenant SELECT t.* FROM jsonb_populate_record(NULL::tenant, $1) t
ON CONFLICT (tenant_id) DO UPDATE SET ({columns}) = ROW({excluded})"""
# The ledger stands but for whom it is told of that they go.
_TELL: Final = "UPDATE erasure SET row_count = 0, sha256 = 'moved' WHERE tenant_id = $1 AND cell IS NOT NULL"
_REOPEN: Final = "UPDATE tenant SET cell = $2, status = 'suspended' WHERE tenant_id = $1"
_FORGET: Final = """UPDATE tenant SET (slug, currency, country, settings, version) = ROW('', '', '', '{}'::jsonb, version + 1)
WHERE tenant_id = $1"""
_TOLD: Final = "UPDATE erasure SET row_count = NULL, sha256 = NULL WHERE tenant_id = $1 AND cell IS NOT NULL"
_COLUMNS: Final = "SELECT attname FROM pg_attribute WHERE attrelid = 'tenant'::regclass AND attnum > 0 AND NOT attisdropped"


async def cell_of(connection: Connection, tenant_id: UUID) -> tuple[str, int] | None:
    """Where the tenant is, as this database has it, and how new that is; None when it has not heard of it."""
    row = await connection.fetchrow("SELECT cell, tenant_version FROM tenant WHERE tenant_id = $1", tenant_id)
    return (row["cell"], row["tenant_version"]) if row else None


async def positions(connection: Connection) -> Positions:
    """How far this database's workers have come."""
    return _at(await connection.fetch(_READ))


async def hold(target: Connection, tenant_id: UUID, consumers: Sequence[str]) -> Positions:
    """Keep for later what comes of the tenant; answers from where on that is so."""
    async with target.transaction():
        rows = await target.fetch(_LOCKED)
        for each in consumers:
            kept = Sources(each).keep_for_later([Source(tenant_id, ANY)])
            await target.execute(kept.sql, *kept.arguments)
    return _at(rows)


async def release(target: Connection, tenant_id: UUID) -> None:
    """Keep nothing of it, since it does not come."""
    async with target.transaction():
        await target.fetch(_LOCKED)
        await target.execute(_RELEASE, tenant_id)


async def depart(source: Connection, tenant_id: UUID, cell: str, here: str) -> None:
    """Close the door: from here on nothing is decided of the tenant, and what comes of it is the other cell's."""
    async with source.transaction():
        rows = await source.fetch(_LOCKED)
        stood = await source.fetchval(_STANDS, tenant_id, cell, here)
        if stood is None:
            return
        await source.execute(_LEAVE, tenant_id, cell)
        await source.execute(_STOP, tenant_id)
        told = [dict(row) | {"watermarks": json.loads(row["watermarks"])} for row in rows]
        await source.execute(_DEPART, tenant_id, cell, stood, json.dumps(told))


async def deciding(source: Connection) -> set[str]:
    """The transactions under way that may not have seen that the door is closed."""
    return {row[0] for row in await source.fetch(_DECIDING)}


async def arrive(source: Connection, target: Connection, tenant_id: UUID) -> list[Place]:
    """Open the door, and have what was held back decided; answers, instead, which partitions are not that far here yet."""
    left = await _departure(source, tenant_id)
    wanted = _at(json.loads(left["positions"]))
    async with target.transaction():
        here = _at(await target.fetch(_LOCKED))
        if behind := [place for place, at in wanted.items() if here.get(place, -1) < at]:
            return behind
        await target.execute(_SHORTEN, tenant_id, left["positions"])
        await target.execute(_SOURCES, left["sources"])
        await target.execute(_RANGES, left["ranges"])
        await target.execute(_RESUME, tenant_id)
        await target.execute(_LET_GO, tenant_id)
        columns = [each["attname"] for each in await target.fetch(_COLUMNS)]
        excluded = ", ".join(f"excluded.{each}" for each in columns)
        await target.execute(_ARRIVE.format(columns=", ".join(columns), excluded=excluded), left["tenant"])
    return []


async def is_nowhere(source: Connection, target: Connection, tenant_id: UUID, way: tuple[str, str]) -> bool:
    """Whether each says that it is in the other, and it has left neither: both were restored to before a move."""
    here, there = [await cell_of(each, tenant_id) for each in (source, target)]
    is_here, is_there = here is not None and here[0] == way[0], there is None or there[0] == way[1]
    return not (is_here or is_there) and await source.fetchrow(_DEPARTURE, tenant_id) is None


async def reopen(target: Connection, tenant_id: UUID, cell: str) -> None:
    """Open the door where its rows are, for what is under way: how it stands is identity's next word."""
    await target.execute(_REOPEN, tenant_id, cell)


async def empty(source: Connection, tenant_id: UUID, tables: Sequence[str]) -> int:
    """Delete the rows that have gone along, which nobody asks for here any more; answers how many."""
    if await source.fetchrow(_DEPARTURE, tenant_id) is None:
        return 0
    await source.execute(_TELL, tenant_id)
    count = 0
    for table in [*reversed([each for each in tables if each not in _STAYS]), "inbox_source_range", "inbox_source"]:
        while gone := await _deleted(source, tenant_id, table):
            count += gone
    async with source.transaction():
        await source.execute(_FORGET, tenant_id)
        await source.execute("SELECT audit_forget($1)", tenant_id)  # its keys are where it is; the trail here stands without
        await source.execute("DELETE FROM departure WHERE tenant_id = $1", tenant_id)
        await source.execute(_TOLD, tenant_id)
    return count


async def _deleted(source: Connection, tenant_id: UUID, table: str) -> int:
    done = await source.execute(
        f"DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE tenant_id = $1 LIMIT $2)) "  # noqa: S608
        "AND tenant_id = $1",
        tenant_id,
        AT_ONCE,
    )
    return int(done.rpartition(" ")[2])


async def _departure(source: Connection, tenant_id: UUID) -> Any:
    left = await source.fetchrow(_DEPARTURE, tenant_id)
    if left is None:
        raise MoveError("it has not left its cell here: nothing tells from which message on it is another's")
    return left


def _at(rows: Sequence[Any]) -> Positions:
    return {Place(row["consumer"], row["topic"], row["part"]): row["next_offset"] for row in rows}
