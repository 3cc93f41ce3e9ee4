"""Erasing a tenant here: once nothing of it is under way its door is sealed, and then it goes, step by step.

Each step is found again from the database, so a worker may be killed after any of them, and any number may do them at once:

    erasing   `tenant` says so, and nothing is sealed: what was begun comes to its end
    sealed    nobody who begins from now on makes anything of this tenant, and those who began before are waited for
    told      what there was has been counted, and its digest stands: what is deleted from now on is known
    erased    every row is gone but the one that says so, and the event that says it is in the outbox
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from uuid import UUID

import structlog

from libs.common.contracts import Event
from libs.common.database import WHATEVER_IT_SAYS, Connection, Database, poll
from libs.common.database.holdings import TENANT, Holdings, pages
from libs.common.decision import Handler, Message, Ref, World, present
from libs.common.messaging import audit
from libs.common.messaging.shell import Failure, Shell
from libs.common.standings import ERASING
from libs.common.telemetry import Counter, Gauge
from libs.common.tenancy import Tenant

LOOK_SECONDS = 2.0
WAIT_SECONDS = 0.2
AT_ONCE = 1_000
"""Rows deleted with one transaction."""
KEPT_BY_THE_KERNEL = (
    *("departure", "timer", "idempotency_key", "inbox_source_range", "inbox_source", "inbox_parked"),
    *("outbox_parked", "outbox_event"),
)
OUTBOX = frozenset({"outbox_parked", "outbox_event"})

WAITING = Gauge("cartwright_erasures_waiting", "Tenants that are to be erased, by what they still wait for", ["what"])
ERASED = Counter("cartwright_tenants_erased_total", "Tenants of which this service has nothing any more")

TO_ERASE = "SELECT tenant_id, status FROM tenants_to_erase()"
STEP = "SELECT sealed_at, row_count, sha256, erased_at FROM erasure WHERE tenant_id = $1"
# Only of the role's own sessions is it told since when they work, and nobody else writes tenants' rows.
OLDER = """SELECT EXISTS (SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid() AND xact_start <= $1)"""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleTenant:
    """Say that nothing of a tenant is under way here any more. A service that others wait for has a handler of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuryTenant:
    """Say that this service has nothing of the tenant any more; in the transaction that makes it so."""

    row_count: int
    sha256: str


def word_of(service: str) -> Handler[BuryTenant, None]:
    """What a service other than identity says when it has nothing of a tenant any more: its own `tenant.erased`."""
    erased: Callable[..., Event] = import_module(f"libs.common.contracts.{service}").TenantErased

    def bury(world: World, message: Message[BuryTenant]) -> None:
        tenant, told = present(Tenant, world.get(Tenant, world.tenant_id)), message.data
        facts = {"tenant_id": world.tenant_id, "service": service, "tenant_version": tenant.tenant_version}
        world.publish(erased(**facts, row_count=told.row_count, sha256=told.sha256), tenant.sequence + 1)

    return Handler(bury, lambda message: [Ref(Tenant, message.tenant_id)], outlives=True)


class Eraser:
    """Erases what one service has of tenants."""

    def __init__(self, shell: Shell, holdings: Holdings, bury: Handler[BuryTenant, Any]) -> None:
        self._shell = shell
        self._holdings = holdings
        self._bury = bury

    async def run(self) -> None:
        """Look for tenants to erase, for ever."""
        await poll(self.look, every=LOOK_SECONDS, waiting="eraser.waiting", outlives=WHATEVER_IT_SAYS)

    async def look(self) -> None:
        """Take every tenant as far as it goes now."""
        async with self._database.acquire() as connection:
            leaving = await connection.fetch(TO_ERASE)
        waiting = [await self._advanced(row["tenant_id"], row["status"]) for row in leaving]
        WAITING.clear()
        for what in filter(None, waiting):
            WAITING.labels(what).inc()

    async def _advanced(self, tenant_id: UUID, status: str) -> str | None:
        """The same for one of many: what fails of it holds up none of the others."""
        try:
            return await (self.advance(tenant_id) if status == ERASING else self._settle(tenant_id))
        except Exception:
            log.exception("tenant.not_erased", tenant_id=str(tenant_id), action="it is tried again")
            return "failure"

    async def advance(self, tenant_id: UUID) -> str | None:
        """Take one tenant as far as it goes; answers what it still waits for, if it is not erased by then."""
        what = await self._seal(tenant_id)
        if what is not None:
            return what
        await self._until_the_others_are_done()
        async with self._database.transaction([tenant_id]) as connection:
            if await connection.fetchval("SELECT erasure_outbox_waits($1)", tenant_id):
                return "outbox"
            step = await connection.fetchrow(STEP, tenant_id)
        if step is None or step["erased_at"] is not None:
            return None
        if step["sha256"] is None:
            await self._tell(tenant_id)
        for table in self._tables:
            await self._empty(tenant_id, table)
        await self._end(tenant_id)
        return None

    @property
    def _database(self) -> Database:
        return self._shell.database

    @property
    def _tables(self) -> list[str]:
        """What is emptied while the tenant's own row still says that it is to be erased."""
        return [*KEPT_BY_THE_KERNEL, *(table for table in self._holdings.erased if table != TENANT)]

    @property
    def _own(self) -> list[str]:
        return [table for table in self._holdings.erased if table == TENANT]

    async def _settle(self, tenant_id: UUID) -> str | None:
        """It is not to be erased here yet; but if others wait for that, say once that nothing is under way. Answers what is."""
        if SettleTenant not in self._shell.handlers.table:
            return None
        async with self._database.transaction([tenant_id]) as connection:
            what = await self._under_way(connection, tenant_id)
        if what is None:
            await self._shell.execute(self._shell.command(SettleTenant(), tenant_id))
        return what

    async def _under_way(self, connection: Connection, tenant_id: UUID) -> str | None:
        """The first table in which something is still to become of a row."""
        for each in self._holdings.under_way:
            some = f"SELECT EXISTS (SELECT FROM {each.table} WHERE tenant_id = $1 AND ({each.condition}))"  # noqa: S608 - our own
            if await connection.fetchval(some, tenant_id):
                return each.table
        return None

    async def _seal(self, tenant_id: UUID) -> str | None:
        """Seal its door, unless something is under way behind it; answers what is."""
        async with self._database.transaction([tenant_id]) as connection:
            if await connection.fetchrow(STEP, tenant_id) is not None:
                return None
            what = await self._under_way(connection, tenant_id)
            if what is not None:
                return what
            await connection.execute("SELECT erasure_seal($1)", tenant_id)
        log.info("tenant.sealed", tenant_id=str(tenant_id))
        return None

    async def _until_the_others_are_done(self) -> None:
        """Wait for every transaction that began before now, and so may not have seen the seal. Each is bounded."""
        async with self._database.acquire() as connection:
            sealed_before = await connection.fetchval("SELECT clock_timestamp()")
            while await connection.fetchval(OLDER, sealed_before):  # noqa: ASYNC110 - the database calls nobody for that
                await asyncio.sleep(WAIT_SECONDS)

    async def _tell(self, tenant_id: UUID) -> None:
        """Count what there is, and take the digest that its export has."""
        digest, count = hashlib.sha256(), 0
        taken = pages(lambda: self._database.transaction([tenant_id]), tenant_id, self._holdings.parts)
        async for _, how_many, lines in taken:
            digest.update(lines)
            count += how_many
        async with self._database.transaction([tenant_id]) as connection:
            await connection.execute("SELECT erasure_tell($1, $2, $3)", tenant_id, count, digest.hexdigest())

    async def _empty(self, tenant_id: UUID, table: str) -> None:
        """Delete its rows of one table, some with each transaction."""
        is_full = True
        while is_full:
            async with self._database.transaction([tenant_id]) as connection:
                # Of several workers one deletes at a time, and none what another has been through with.
                is_open = await connection.fetchval("SELECT erasure_lock($1)", tenant_id)
                is_full = is_open and await _erase(connection, tenant_id, table) == AT_ONCE

    async def _end(self, tenant_id: UUID) -> None:
        """The last of it, its own row too, and the word that it is gone; unless another worker was faster."""
        async with self._database.transaction([tenant_id]) as connection:
            if not await connection.fetchval("SELECT erasure_lock($1)", tenant_id):
                return
            step = await connection.fetchrow(STEP, tenant_id)
            told = self._shell.command(BuryTenant(row_count=step["row_count"], sha256=step["sha256"]), tenant_id)
            [answer], aggregates = await self._shell.decide(connection, [told], handlers=[self._bury])
            if isinstance(answer, Failure):
                raise answer.error
            await self._shell.store(connection, aggregates)
            # What was made between the seal and the last who had not seen it is gone by now; and if not, it goes with the rest.
            for table in (*(each for each in self._tables if each not in OUTBOX), *self._own):
                await _erase(connection, tenant_id, table)
            await audit.forget(connection, tenant_id)
            await connection.execute("SELECT erasure_finish($1)", tenant_id)
        self._shell.committed(aggregates)
        ERASED.inc()
        log.info("tenant.erased", tenant_id=str(tenant_id), rows=step["row_count"], sha256=step["sha256"])


async def _erase(connection: Connection, tenant_id: UUID, table: str) -> int:
    erased: int = await connection.fetchval("SELECT erase_rows($1, $2, $3)", tenant_id, table, AT_ONCE)
    return erased
