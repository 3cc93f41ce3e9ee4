"""A tenant that leaves, with something in every table there is, and its neighbour who stays."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from deploy.composition import parts_of
from libs.common.database import Connection, Database
from libs.common.database.connections import Pool
from libs.common.database.holdings import Holdings
from libs.common.messaging.erasing import Eraser
from libs.common.messaging.hints import Hints
from libs.common.messaging.shell import Shell
from services.identity.domain.tenant import PROVISIONERS
from services.identity.handlers import CloseTenant, EraseTenant
from tests.integration.victims import SEEDS, Victim
from tests.shared.callers import Person, edge, message
from tests.shared.events import tenant_updated
from tests.shared.places import Place, counted
from tests.shared.victims import tenant_of

STAYING = {"audit_entry", "audit_head", "erasure"}
"""Tables in which an erased tenant still has rows: that it is erased, and who did what, with nobody in it."""

COLUMNS = """SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type FROM pg_attribute a
WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND a.attnotnull AND NOT a.attisdropped AND NOT a.atthasdef"""

ANYTHING = {
    "uuid": "gen_random_uuid()",
    "text": "'canary'",
    "bigint": "1",
    "integer": "1",
    "smallint": "1",
    "jsonb": "'{}'",
    "bytea": "''",
    "boolean": "false",
    "timestamp with time zone": "now()",
    "date": "current_date",
}
"""What stands in a column of each type where nothing says otherwise."""

PARTICULAR: Mapping[str, Mapping[str, str]] = {
    "idempotency_key": {"fingerprint": "'\\x00'"},
    "inbox_parked": {"state": "'waiting'", "headers": "'[]'"},
    "inbox_source": {"state": "'paused'"},
    "outbox_parked": {"state": "'discarded'"},
    "promotion": {"kind": "'percentage'", "basis_points": "1"},
    "stock_hint": {"availability": "'unknown'"},
    "refund": {"state": "'succeeded'", "currency": "'GBP'", "lines": "'[]'"},
    "timeline_entry": {"kind": "'event'"},
    "timeline_entry_rebuild": {"kind": "'event'"},
    "declines": {"by": "'subject'"},
    "webhook_event": {"subject": "'other'", "result": "'of-no-interest'"},
    "provider_account": {"provider": "'stripe'", "webhook_secrets": "'[]'", "account_id": "gen_random_uuid()"},
    "account_connection": {"state_digest": "sha256('')"},
    "epoch": {"kind": "'subject'"},
    "session": {"state": "'live'", "scopes": "'[]'"},
    "second_factor": {"state": "'pending'", "sealed_secret": "'\\x00'", "recovery": "'[]'"},
    "password_reset": {"state": "'open'"},
    "signing_key": {"state": "'retired'", "sealed_private_key": "''"},
}
"""What a constraint wants."""

SETTLED = "due_at = NULL WHERE due_at IS NOT NULL AND tenant_id = $1"
MINE = "WHERE tenant_id = $1"
UNDER_WAY: Mapping[str, Sequence[tuple[str, str, str]]] = {
    "cart": (),
    "checkout": (
        ("checkout", f"UPDATE checkout SET state = 'started' {MINE}", f"UPDATE checkout SET state = 'confirmed' {MINE}"),
        ("refund", f"UPDATE refund SET state = 'pending' {MINE}", f"UPDATE refund SET state = 'succeeded' {MINE}"),
    ),
    "payments": (
        (
            "payment",  # money that no order is known for
            f"UPDATE payment SET order_standing = 'awaited' {MINE}",
            f"UPDATE payment SET order_standing = 'confirmed' {MINE}",
        ),
        ("operation", "", f"UPDATE operation SET state = 'succeeded', outcome = '{{}}', {SETTLED}"),
        ("refund", "", f"UPDATE refund SET state = 'succeeded', provider_id = 're_2', {SETTLED}"),
        ("dispute", "", f"UPDATE dispute SET state = 'lost' {MINE}"),
        (
            "webhook_event",
            f"UPDATE webhook_event SET due_at = now(), result = NULL {MINE}",
            f"UPDATE webhook_event SET due_at = NULL, result = 'gone' {MINE}",
        ),
        ("reconciliation", "", f"UPDATE reconciliation SET state = 'finished', finished_at = now(), {SETTLED}"),
    ),
}
"""What a tenant waits for, one after the other: how it comes about, where it is not there already, and how it ends."""


@dataclass
class Leaver:
    """The victim, on its way out."""

    victim: Victim
    eraser: Eraser

    @property
    def holdings(self) -> Holdings:
        return parts_of(self.victim.place.service).holdings

    @property
    def left(self) -> set[str]:
        """The tables in which something is found of it in the end."""
        return STAYING | ({self.holdings.tombstone} if self.holdings.tombstone else set())

    async def counts(self, tenant_id: UUID | None = None) -> dict[str, int]:
        """How many rows it has, table by table."""
        return await counted(self.victim.place, tenant_id or self.victim.tenant_id)

    async def fill(self) -> None:
        """Put a row into each table where there is none."""
        counts = await self.counts()
        admin = await self.victim.place.as_admin()
        try:
            await admin.execute("SET session_replication_role = replica")  # what they refer to is not there either
            for table in counts.keys() - STAYING:
                if not counts[table]:
                    await _fill(admin, table, self.victim.tenant_id)
        finally:
            await admin.close()

    async def is_to_leave(self, unless: Collection[str] = ()) -> None:
        """A service is told that it is its turn. Identity has it so, and hears the word of the others, but for these."""
        place, shell, tenant_id = self.victim.place, self.victim.shell, self.victim.tenant_id
        if place.service != "identity":
            told = tenant_updated(tenant_id, version=9, status="erasing", erased_by=["checkout"], settled_by=["payments"])
            await shell.execute(message(told, tenant_id))
            return
        for command in (CloseTenant(), EraseTenant()):
            await shell.execute(message(command, tenant_id))
        for service in PROVISIONERS:
            if service not in unless:
                await self.word_of(service)

    async def word_of(self, service: str) -> None:
        """A service tells identity that it has nothing of it any more."""
        erased = __import__(f"libs.common.contracts.{service}", fromlist=["TenantErased"]).TenantErased
        facts = {"tenant_id": self.victim.tenant_id, "service": service, "tenant_version": 9, "row_count": 1, "sha256": "0" * 64}
        await self.victim.shell.execute(message(erased(**facts), self.victim.tenant_id))

    async def ends(self) -> None:
        """What was under way has ended."""
        await self.as_admin(*(ends for *_, ends in UNDER_WAY.get(self.victim.place.service, ())))

    async def relayed(self) -> None:
        """A relay has published all that there is."""
        await self.as_admin("UPDATE outbox_cursor SET lo = pg_current_snapshot(), hi = NULL WHERE $1::uuid IS NOT NULL")

    async def as_admin(self, *statements: str) -> None:
        admin = await self.victim.place.as_admin()
        try:
            for statement in statements:
                await admin.execute(statement, self.victim.tenant_id)
        finally:
            await admin.close()

    async def words(self) -> list[dict[str, Any]]:
        """The events in which the service says that it is done."""
        admin = await self.victim.place.as_admin()
        try:
            mark = b"tenant.updated" if self.victim.place.service == "identity" else b"tenant.erased"
            sql = "SELECT payload FROM outbox_event WHERE tenant_id = $1 AND position($2 in headers) > 0 ORDER BY id"
            return [orjson.loads(row["payload"]) for row in await admin.fetch(sql, self.victim.tenant_id, mark)]
        finally:
            await admin.close()


@asynccontextmanager
async def leaving(place: Place) -> AsyncIterator[Leaver]:
    """A tenant that leaves this database."""
    async with edge(place) as (client, shell), AsyncExitStack() as leaves:
        tenant_id = await tenant_of(shell, place.service)
        victim = Victim(place, client, shell, tenant_id, Person(tenant_id), {}, leaves)
        victim.ids |= await SEEDS[place.service](victim)
        leaver = Leaver(victim, parts_of(place.service).eraser(shell))
        await leaver.fill()
        yield leaver


async def _fill(admin: asyncpg.Connection, table: str, tenant_id: UUID) -> None:
    values = {row["name"]: ANYTHING[row["type"]] for row in await admin.fetch(COLUMNS, table)}
    values |= {**PARTICULAR.get(table, {}), "tenant_id": f"'{tenant_id}'"}
    await admin.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(values.values())})")


class KilledError(Exception):
    """The process is no more."""


class Mortal(Database):
    """A database whose process dies at one of its transactions: before it begins, or when it has just been committed."""

    def __init__(self, pool: Pool, fatal: int) -> None:
        super().__init__(pool)
        self._left = fatal

    @asynccontextmanager
    async def transaction(self, tenant_ids: Iterable[UUID]) -> AsyncIterator[Connection]:
        self._step()
        async with super().transaction(tenant_ids) as connection:
            yield connection
        self._step()

    def _step(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise KilledError


def eraser_on(place: Place, database: Database) -> Eraser:
    """The service's own, on this database."""
    parts = parts_of(place.service)
    return parts.eraser(Shell(database, parts.rows, parts.handlers, service=place.service, hints=Hints(place.url("app"))))
