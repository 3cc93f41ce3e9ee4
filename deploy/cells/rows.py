"""One tenant's rows in two databases of a service: how they differ, and how those of one come to be as the other's.

Both are compared by digests of buckets, each of a few rows, so a second look at what was copied costs reading it, and little
more is copied again than what has changed since.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from types import MappingProxyType
from typing import Final
from uuid import UUID

from deploy.cells.errors import MoveError
from deploy.cells.together import together
from libs.common.database import Connection
from libs.common.messaging.schema import MOVES

A_BUCKET: Final = 16
"""So many rows of a table are in a bucket, or fewer, unless there are millions of them."""
_DIGITS: Final = range(2, 5)

Buckets = Mapping[int, str]
"""By bucket, the digest of the rows in it."""

_CATALOG: Final = """SELECT c.relname AS name,
    ARRAY(SELECT a.attname FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attname) AS columns,
    ARRAY(SELECT a.attname FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k(number, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
        WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY k.place) AS keys,
    EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgtype & 1 = 0 AND t.tgtype & 16 <> 0)
        AS stands,
    EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgtype & 1 = 0 AND t.tgtype & 8 <> 0)
        AS stays,
    ARRAY(SELECT r.relname FROM pg_constraint f JOIN pg_class r ON r.oid = f.confrelid
        WHERE f.conrelid = c.oid AND f.contype = 'f' AND f.confrelid <> c.oid) AS refers
FROM pg_class c JOIN pg_policy p ON p.polrelid = c.oid AND p.polname = $1
WHERE c.relnamespace = 'public'::regnamespace AND NOT c.relname = ANY ($2::text[])"""

_APART: Final = ("tenant", "departure", "inbox_source", "inbox_source_range")
"""What is moved by whoever opens the door: it says where the tenant is, and from where on its messages are whose."""
_AFTER: Final = {"order_term": ["customer_order"]}
"""What a trigger makes of rows that are copied, as far as it can: the rest is brought afterwards."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A table in which rows of tenants are kept."""

    name: str
    columns: Sequence[str]
    keys: Sequence[str]
    stands: bool = False
    """Whether what is there is never changed."""
    stays: bool = False
    """Whether it is never deleted."""
    refers: Sequence[str] = ()
    of: str = "tenant_id = $1"
    """Which rows are the tenant's."""
    digits: int = 2
    """So many of a hexadecimal digest tell the bucket of a row."""

    @property
    def rest(self) -> Sequence[str]:
        """The columns that are no part of the key."""
        return [each for each in self.columns if each not in self.keys]

    @property
    def bucket(self) -> str:
        """The bucket of a row."""
        key = f"md5(ROW({', '.join(self.keys)})::text)"
        return f"('x' || left({key}, {self.digits}))::bit({4 * self.digits})::int"


MESSAGES: Final = Kept(
    "inbox_message",
    ("consumer", "day", "message_id", "source"),
    ("consumer", "source", "message_id", "day"),
    stands=True,
    of="$1::uuid IS NOT NULL",
)
"""The ids of what others have sent, which name no tenant: all of them, or a repetition would be news where it comes next."""


@dataclass(slots=True)
class Copied:
    """What one look came to."""

    rows: int = 0
    tables: list[str] = field(default_factory=list)
    digest: str = ""
    """Of all there was to compare."""
    messages: Buckets = field(default_factory=dict)
    """The source's of this moment, all of which are in the target too."""


async def tables(source: Connection, target: Connection, tenant_id: UUID) -> list[Kept]:
    """What is to be copied, each after those that it refers to. Raises MoveError when the two are not of one version."""
    here, there = [await _catalog(connection) for connection in (source, target)]
    if here != there:
        unlike = sorted({each.name for each in here.values() if there.get(each.name) != each} | there.keys() - here.keys())
        raise MoveError(f"the two databases are not of one version ({', '.join(unlike)} differ): migrate both first")
    before = {name: [*kept.refers, *_AFTER.get(name, ())] for name, kept in here.items()}
    order = TopologicalSorter({name: [each for each in refers if each in here] for name, refers in before.items()})
    found = [MESSAGES, *(here[name] for name in order.static_order())]
    return [replace(each, digits=await _digits(source, each, tenant_id)) for each in found]


async def _digits(source: Connection, table: Kept, tenant_id: UUID) -> int:
    """As few as leave no bucket with many rows: what has changed in a bucket is copied with all of it."""
    count = await source.fetchval(f"SELECT count(*) FROM {table.name} WHERE {table.of}", tenant_id)  # noqa: S608 - names of the catalog's
    return next((digits for digits in _DIGITS if count <= A_BUCKET * 16**digits), _DIGITS[-1])


async def _catalog(connection: Connection) -> dict[str, Kept]:
    rows = await connection.fetch(_CATALOG, MOVES, list(_APART))
    return {
        row["name"]: Kept(row["name"], row["columns"], row["keys"], row["stands"], row["stays"], sorted(row["refers"]))
        for row in rows
    }


async def has_any(connection: Connection, tenant_id: UUID, kept: Sequence[Kept]) -> bool:
    """Whether anything of the tenant is there."""
    theirs = [f"EXISTS (SELECT FROM {each.name} WHERE {each.of})" for each in kept if each.name != MESSAGES.name]
    found: bool = await connection.fetchval(f"SELECT {' OR '.join(theirs)}", tenant_id)
    return found


async def made_equal(
    source: Connection, target: Connection, tenant_id: UUID, kept: Sequence[Kept], known: Buckets = MappingProxyType({})
) -> Copied:
    """Make the target's rows what the source's are at this moment; answers how many had to be copied for that.

    `known`: the messages that the look before has brought. The target knows others too, so its own digests of them tell nothing.
    """
    copied, digest = Copied(messages=known), hashlib.sha256()
    changed: list[tuple[Kept, list[int]]] = []
    async with source.transaction(isolation="repeatable_read", readonly=True), target.transaction():
        for table in kept:
            if table.name == MESSAGES.name:
                ours, theirs = await _digests(source, table, tenant_id), copied.messages
                copied.messages = ours
            else:
                ours, theirs = await together(_digests(each, table, tenant_id) for each in (source, target))
            digest.update(f"{table.name} {sorted(ours.items())}\n".encode())
            unlike = sorted(each for each in ours.keys() | theirs.keys() if ours.get(each) != theirs.get(each))
            if unlike:
                copied.rows += await _brought(source, target, tenant_id, table, unlike)
                changed.append((table, unlike))
        for table, unlike in reversed(changed):
            if not (table.stands or table.stays):
                await target.execute(_delete(table), tenant_id, unlike)
        for table, _ in changed:
            await target.execute(_insert(table))
            copied.tables.append(table.name)
    copied.digest = digest.hexdigest()
    return copied


async def _digests(connection: Connection, table: Kept, tenant_id: UUID) -> Buckets:
    row = f"md5(ROW({', '.join(table.columns)})::text)"
    rows = await connection.fetch(
        f"SELECT {table.bucket} AS bucket, count(*) || ' ' || md5(string_agg({row}, '' ORDER BY {row})) AS digest "  # noqa: S608 - names of the catalog's
        f"FROM {table.name} WHERE {table.of} GROUP BY 1",
        tenant_id,
    )
    return {row["bucket"]: row["digest"] for row in rows}


async def _brought(source: Connection, target: Connection, tenant_id: UUID, table: Kept, buckets: Sequence[int]) -> int:
    """Have the source's rows of these buckets beside the target's."""
    await target.execute(f"CREATE TEMPORARY TABLE {_beside(table)} (LIKE {table.name}) ON COMMIT DROP")
    pipe: asyncio.Queue[bytes | None] = asyncio.Queue(16)
    wanted = f"SELECT {', '.join(table.columns)} FROM {table.name} WHERE {table.of} AND {table.bucket} = ANY ($2::int[])"  # noqa: S608

    async def send() -> None:
        await source.copy_from_query(wanted, tenant_id, list(buckets), output=pipe.put, format="binary")
        await pipe.put(None)

    async def chunks() -> AsyncIterator[bytes]:
        while (chunk := await pipe.get()) is not None:
            yield chunk

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            columns = list(table.columns)
            told = group.create_task(
                target.copy_to_table(_beside(table), source=chunks(), columns=columns, format="binary", schema_name="pg_temp")
            )
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return int(told.result().rpartition(" ")[2])


def _beside(table: Kept) -> str:
    return f"moved_{table.name}"


def _delete(table: Kept) -> str:
    same = " AND ".join(f"m.{key} = {table.name}.{key}" for key in table.keys)
    return (
        f"DELETE FROM {table.name} WHERE {table.of} AND {table.bucket} = ANY ($2::int[]) "  # noqa: S608 - names of the catalog's
        f"AND NOT EXISTS (SELECT FROM {_beside(table)} m WHERE {same})"
    )


def _insert(table: Kept) -> str:
    columns, keys, rest = (", ".join(each) for each in (table.columns, table.keys, table.rest))
    upsert = "DO NOTHING"
    if rest and not table.stands:
        theirs = ", ".join(f"excluded.{each}" for each in table.rest)
        ours = ", ".join(f"{table.name}.{each}" for each in table.rest)
        upsert = f"DO UPDATE SET ({rest}) = ROW({theirs}) WHERE ROW({ours}) IS DISTINCT FROM ROW({theirs})"
    return f"INSERT INTO {table.name} ({columns}) SELECT {columns} FROM {_beside(table)} ON CONFLICT ({keys}) {upsert}"  # noqa: S608
