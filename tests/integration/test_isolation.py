"""The database itself keeps tenants apart: through the role that serves requests, whatever the code around it forgot."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from libs.common import tenancy
from libs.common.database import Connection, Database
from tests.shared.places import MIGRATED, Place, Places

COLUMNS = """SELECT c.relname AS name, a.attname AS column, format_type(a.atttypid, NULL) AS type
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    AND (a.attnotnull OR a.attname LIKE '%tenant_id') AND NOT a.atthasdef
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND EXISTS (SELECT FROM pg_attribute b WHERE b.attrelid = c.oid AND b.attname = 'tenant_id')
    -- What is parked is the operators': one table is closed to the app, the other also holds what names no credible tenant.
    AND c.relname NOT IN ('outbox_parked', 'inbox_parked')
    -- What the owner or its functions alone write has tests of its own (test_audit_trail, test_erasing, test_cells).
    AND c.relname NOT IN ('audit_entry', 'audit_head', 'erasure', 'departure')
ORDER BY 1, a.attnum"""
CONSTRAINTS = """SELECT conrelid::regclass::text AS name, conname FROM pg_constraint
WHERE contype IN ('c', 'f') AND conislocal AND connamespace = 'public'::regnamespace"""
WRITE_ONLY = "outbox_event"


@dataclass(frozen=True)
class Scene:
    """A database in which one tenant has a row in every table, and the app's pool of a single connection."""

    database: Database
    owner_of_rows: UUID
    stranger: UUID
    tables: dict[str, list[tuple[str, str]]]
    added_to: frozenset[str]
    """Those whose rows the app may add and read, and not change."""

    def insert(self, table: str) -> str:
        """An INSERT of a second row: it meets the policy before any constraint."""
        columns = self.tables[table]
        values = ", ".join(f"${index}::{kind}" for index, (_, kind) in enumerate(columns, 1))
        return f"INSERT INTO {table} ({', '.join(name for name, _ in columns)}) VALUES ({values})"

    def row(self, table: str) -> list[Any]:
        return [self.owner_of_rows if name == "tenant_id" else _something(kind) for name, kind in self.tables[table]]


def _something(kind: str) -> Any:
    values = {"uuid": uuid4(), "jsonb": "[]", "bytea": b"{}", "boolean": False}
    if kind in values:
        return values[kind]
    return "2026-01-01" if kind.startswith("timestamp") else "1" if kind == "text" else 1


@pytest.fixture(params=MIGRATED)
async def scene(request: pytest.FixtureRequest, empty: Places) -> AsyncIterator[Scene]:
    place: Place = empty(request.param)
    tenant = uuid4()
    admin = await place.as_admin()
    tables: dict[str, list[tuple[str, str]]] = {}
    for row in await admin.fetch(COLUMNS):
        tables.setdefault(row["name"], []).append((row["column"], row["type"]))
    # No constraint matters here, only who may see and touch; a superuser puts the rows past the policies.
    for check in await admin.fetch(CONSTRAINTS):
        await admin.execute(f"ALTER TABLE {check['name']} DROP CONSTRAINT {check['conname']}")
    changed = "SELECT has_table_privilege($1, $2::text, 'UPDATE')"
    app = f"{place.service}_app"
    added_to = frozenset([name for name in tables if not await admin.fetchval(changed, app, name)])
    database = await Database.connect(place.url("app"), application="isolation", size=1)
    scene = Scene(database, tenant, uuid4(), tables, added_to)
    try:
        for table in tables:
            await admin.execute(_as_text(scene.insert(table)), *map(_text, scene.row(table)))
        yield scene
    finally:
        await admin.close()
        await database.close()


def _as_text(insert: str) -> str:
    """Every parameter as text, so that one value will do for a kind of column."""
    head, _, values = insert.partition("VALUES (")
    casts = [f"${index}::text::{value.partition('::')[2]}" for index, value in enumerate(values.rstrip(")").split(", "), 1)]
    return f"{head}VALUES ({', '.join(casts)})"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


async def _sees(connection: Connection, table: str) -> int:
    count: int = await connection.fetchval(f"SELECT count(*) FROM {table}")
    return count


async def _foreign_rows(scene: Scene, connection: Connection) -> dict[str, Sequence[int]]:
    """What a connection reaches of the other tenant's rows, table by table: read, changed."""
    reached: dict[str, Sequence[int]] = {}
    for table in scene.tables:
        if table == WRITE_ONLY:
            continue
        seen = await _sees(connection, table)
        if table in scene.added_to:
            reached[table] = (seen, seen)
            continue
        updated = await connection.execute(f"UPDATE {table} SET tenant_id = tenant_id WHERE tenant_id = $1", scene.owner_of_rows)
        reached[table] = (seen, int(updated.split()[-1]))
    return reached


async def _refused(scene: Scene, tenants: Sequence[UUID]) -> None:
    """Neither can a row be written for a tenant that is not named, nor can one be given to it, nor any be deleted."""
    for table in scene.tables:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            async with scene.database.transaction(tenants) as connection:
                await connection.execute(_as_text(scene.insert(table)), *map(_text, scene.row(table)))
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
            async with scene.database.transaction([*tenants, scene.owner_of_rows]) as connection:
                await connection.execute(f"DELETE FROM {table}")


NOTHING = (0, 0)


async def test_a_transaction_for_no_tenant_or_another_reaches_not_one_row(scene: Scene) -> None:
    assert len(scene.tables) > 3
    for tenants in ([], [scene.stranger]):
        async with scene.database.transaction(tenants) as connection:
            assert set((await _foreign_rows(scene, connection)).values()) == {NOTHING}
        await _refused(scene, tenants)
    async with scene.database.transaction([scene.owner_of_rows]) as connection:
        assert set((await _foreign_rows(scene, connection)).values()) == {(1, 1)}, "the rows are there, for whom they belong to"


@asynccontextmanager
async def _bare(scene: Scene) -> AsyncIterator[Connection]:
    """The pool's one connection, with no transaction and no tenant."""
    async with scene.database.acquire() as connection:
        yield connection


async def test_a_pooled_connection_forgets_the_tenant_after_commit_error_and_cancellation(scene: Scene) -> None:
    async with _bare(scene) as connection:
        assert set((await _foreign_rows(scene, connection)).values()) == {NOTHING}, "never set"
        backend = connection.get_server_pid()
    for ending in (None, asyncpg.PostgresSyntaxError, ZeroDivisionError, TimeoutError):
        with pytest.raises(ending) if ending else nullcontext():
            async with (
                asyncio.timeout(0.2 if ending is TimeoutError else 30),
                scene.database.transaction([scene.owner_of_rows]) as connection,
            ):
                assert await _sees(connection, "tenant") == 1
                await _end(connection, ending)
        async with _bare(scene) as connection:
            assert set((await _foreign_rows(scene, connection)).values()) == {NOTHING}, ending
            if ending is not TimeoutError:
                assert connection.get_server_pid() == backend, "it was the same connection all along"


async def _end(connection: Connection, ending: type[Exception] | None) -> None:
    if ending is ZeroDivisionError:
        raise ZeroDivisionError
    if ending is asyncpg.PostgresSyntaxError:
        await connection.execute("SELEKT")
    if ending is TimeoutError:
        await connection.execute("SELECT pg_sleep(5)")


async def test_one_prepared_statement_sees_each_transactions_own_tenant(scene: Scene) -> None:
    sees = []
    for tenants in ([scene.owner_of_rows], [scene.stranger], [], [scene.stranger, scene.owner_of_rows]) * 4:
        async with scene.database.transaction(tenants) as connection:
            sees.append(await _sees(connection, "tenant"))
    assert sees == [1, 0, 0, 1] * 4  # also once the server has a generic plan


async def test_a_row_cannot_be_handed_to_another_tenant(scene: Scene) -> None:
    for table in (table for table in scene.tables if table != WRITE_ONLY):
        refusal = "permission denied" if table in scene.added_to else "row-level security"
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=refusal):
            async with scene.database.transaction([scene.owner_of_rows]) as connection:
                await connection.execute(f"UPDATE {table} SET tenant_id = $1", scene.stranger)


async def test_the_app_can_only_add_to_the_outbox(scene: Scene) -> None:
    for statement in (
        f"SELECT 1 FROM {WRITE_ONLY}",
        f"UPDATE {WRITE_ONLY} SET topic = ''",
        f"DELETE FROM {WRITE_ONLY}",
        f"TRUNCATE {WRITE_ONLY}",
        f"SELECT 1 FROM {WRITE_ONLY}_0",
        f"INSERT INTO {WRITE_ONLY}_0 SELECT",
        "SELECT outbox_truncate(0::smallint)",
        "SELECT outbox_rotate()",
        "SELECT outbox_settle('x')",
        "SELECT 1 FROM outbox_parked",
        "UPDATE operator_action SET reason = ''",
        "DELETE FROM operator_action",
        "UPDATE outbox_cursor SET last_n = 0",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
            async with scene.database.transaction([scene.owner_of_rows]) as connection:
                await connection.execute(statement)
    async with scene.database.transaction([scene.owner_of_rows]) as connection:
        await connection.execute(_as_text(scene.insert(WRITE_ONLY)), *map(_text, scene.row(WRITE_ONLY)))


def test_a_tenant_id_that_is_no_uuid_opens_nothing() -> None:
    assert tenancy.begin([]) == "BEGIN; SET LOCAL cartwright.tenant_ids = ''"
    with pytest.raises(ValueError, match="badly formed"):
        tenancy.begin([UUID("'; DROP TABLE cart; --")])
