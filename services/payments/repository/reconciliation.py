"""Reconciliations, their breaks, and what of ours is compared: by window, and beside what the provider told."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from libs.common.database import Connection, Rows
from libs.common.decision import Aggregate
from services.payments import tables
from services.payments.domain.money.ledger import Entry
from services.payments.domain.reconciliation.comparison import Side
from services.payments.domain.reconciliation.reconciliation import DEEP, Break, Reconciliation
from services.payments.domain.reconciliation.sides import of_dispute, of_payment, of_refund
from services.payments.repository.bookmark import Bookmark
from services.payments.repository.money.disputes import DISPUTES
from services.payments.repository.money.ledger import ENTRIES
from services.payments.repository.money.refunds import REFUNDS
from services.payments.repository.payment import PAYMENTS

A = TypeVar("A", bound=Aggregate)
Window = tuple[datetime, datetime]

RECONCILIATIONS = Rows(tables.RECONCILIATION, Reconciliation)
BREAKS = Rows(tables.BREAK, Break)


# --- Runs and breaks ----------------------------------------------------------------------------------------------

DUE = "SELECT tenant_id, id FROM reconciliations_due($1, $2, $3, $4)"

LAST = """SELECT max(window_to) AS last_to, max(window_to) FILTER (WHERE window_to - window_from >= $2) AS last_deep
FROM reconciliation WHERE tenant_id = $1 AND state = 'finished'"""

OPEN_RUN = "SELECT id FROM reconciliation WHERE tenant_id = $1 AND finished_at IS NULL"

# A break belongs to every run during which it was there.
BREAKS_DURING = """SELECT * FROM reconciliation_break WHERE tenant_id = $1
AND first_seen_at <= coalesce($3::timestamptz, 'infinity') AND (closed_at IS NULL OR closed_at >= $2)
AND (first_seen_at, id) > ($4, $5) ORDER BY first_seen_at, id LIMIT $6"""

OPEN_BREAKS = """SELECT * FROM reconciliation_break WHERE tenant_id = $1 AND closed_at IS NULL AND last_seen_at < $2
AND (first_seen_at, id) > ($3, $4) ORDER BY first_seen_at, id LIMIT $5"""

OPEN_BY_KIND = "SELECT kind, break_count, oldest_seconds FROM reconciliation_breaks_open()"

OLDEST_RUN = "SELECT reconciliation_oldest_seconds()"


async def due_reconciliations(
    connection: Connection, every: timedelta | None, every_quiet: timedelta, how_many: int, cell: str
) -> Sequence[tuple[UUID, UUID | None]]:
    """Whose turn it is: a run that nobody has or, if `every` is said, a tenant who has had none for so long (no id).

    A tenant of whom the provider never had a payment has its turn every so often only, and one of another cell has none here.
    """
    return [(row["tenant_id"], row["id"]) for row in await connection.fetch(DUE, every, every_quiet, how_many, cell)]


async def last_windows(connection: Connection, tenant_id: UUID) -> tuple[datetime | None, datetime | None]:
    """How far the books were compared, and how far by a run that looked far back."""
    row = await connection.fetchrow(LAST, tenant_id, DEEP)
    return (row["last_to"], row["last_deep"]) if row else (None, None)


async def open_reconciliation(connection: Connection, tenant_id: UUID) -> UUID | None:
    """The tenant's run that is not over, if there is one."""
    run_id: UUID | None = await connection.fetchval(OPEN_RUN, tenant_id)
    return run_id


async def breaks_during(connection: Connection, run: Reconciliation, *, after: Bookmark, limit: int) -> Sequence[Break]:
    """One page of the breaks that were there during a run, the oldest first."""
    rows = await connection.fetch(BREAKS_DURING, run.tenant_id, run.started_at, run.finished_at, *after, limit)
    return [BREAKS.decode(row) for row in rows]


async def breaks_not_seen_since(
    connection: Connection, tenant_id: UUID, moment: datetime, *, after: Bookmark, limit: int
) -> Sequence[Break]:
    """One page of the open breaks that nothing has been heard of since then."""
    return [BREAKS.decode(row) for row in await connection.fetch(OPEN_BREAKS, tenant_id, moment, *after, limit)]


async def open_breaks(connection: Connection) -> Mapping[str, tuple[int, float]]:
    """Over all tenants and by kind: how many are open, and the age in seconds of the oldest."""
    return {row["kind"]: (row["break_count"], row["oldest_seconds"]) for row in await connection.fetch(OPEN_BY_KIND)}


async def oldest_reconciliation(connection: Connection) -> float:
    """How many seconds ago the tenant that has waited longest was last reconciled."""
    seconds: float = await connection.fetchval(OLDEST_RUN)
    return seconds


# --- What is compared ---------------------------------------------------------------------------------------------

PAYMENTS_OF = "SELECT * FROM payment WHERE tenant_id = $1 AND (id = ANY ($2::uuid[]) OR intent_id = ANY ($3::text[]))"

REFUNDS_OF = "SELECT * FROM refund WHERE tenant_id = $1 AND (id = ANY ($2::uuid[]) OR provider_id = ANY ($3::text[]))"

DISPUTES_OF = "SELECT * FROM dispute WHERE tenant_id = $1 AND (id = ANY ($2::uuid[]) OR provider_id = ANY ($3::text[]))"

BY_INTENT = "SELECT intent_id, id FROM payment WHERE tenant_id = $1 AND intent_id = ANY ($2::text[])"

BY_SOURCE = """SELECT charge_id AS source_id, id FROM payment WHERE tenant_id = $1 AND charge_id = ANY ($2::text[])
UNION ALL SELECT provider_id, payment_id FROM refund WHERE tenant_id = $1 AND provider_id = ANY ($2::text[])
UNION ALL SELECT provider_id, payment_id FROM dispute WHERE tenant_id = $1 AND provider_id = ANY ($2::text[])"""

ENTRIES_OF = "SELECT * FROM ledger_entry WHERE tenant_id = $1 AND payment_id = ANY ($2::uuid[])"


async def payment_sides(connection: Connection, tenant_id: UUID, keys: Sequence[UUID], intents: Sequence[str]) -> Sequence[Side]:
    """Payments by our ids or the provider's."""
    rows = await connection.fetch(PAYMENTS_OF, tenant_id, keys, intents)
    return [of_payment(PAYMENTS.decode(row)) for row in rows]


async def payment_sides_in(
    connection: Connection, tenant_id: UUID, window: Window, after: Bookmark, limit: int
) -> Sequence[Side]:
    """One page of the payments that were made in a window."""
    return [of_payment(each) for each in await _made_in(PAYMENTS, connection, tenant_id, window, after, limit)]


async def refund_sides(
    connection: Connection, tenant_id: UUID, keys: Sequence[UUID], provider_ids: Sequence[str]
) -> Sequence[Side]:
    """Refunds by our ids or the provider's."""
    rows = await connection.fetch(REFUNDS_OF, tenant_id, keys, provider_ids)
    return [of_refund(REFUNDS.decode(row)) for row in rows]


async def refund_sides_in(connection: Connection, tenant_id: UUID, window: Window, after: Bookmark, limit: int) -> Sequence[Side]:
    """One page of the refunds that were made in a window."""
    return [of_refund(each) for each in await _made_in(REFUNDS, connection, tenant_id, window, after, limit)]


async def dispute_sides(
    connection: Connection, tenant_id: UUID, keys: Sequence[UUID], provider_ids: Sequence[str]
) -> Sequence[Side]:
    """Disputes by our ids or the provider's."""
    rows = await connection.fetch(DISPUTES_OF, tenant_id, keys, provider_ids)
    return [of_dispute(DISPUTES.decode(row)) for row in rows]


async def dispute_sides_in(
    connection: Connection, tenant_id: UUID, window: Window, after: Bookmark, limit: int
) -> Sequence[Side]:
    """One page of the disputes that were made in a window."""
    return [of_dispute(each) for each in await _made_in(DISPUTES, connection, tenant_id, window, after, limit)]


async def _made_in(
    rows: Rows[A], connection: Connection, tenant_id: UUID, window: Window, after: Bookmark, limit: int
) -> Sequence[A]:
    where = {"created_at >=": window[0], "created_at <": window[1]}
    return await rows.page(connection, tenant_id, after=after, limit=limit, by=["created_at", "id"], where=where)


async def payments_of_intents(connection: Connection, tenant_id: UUID, intents: Sequence[str]) -> Mapping[str, UUID]:
    """Which payment of the tenant each of the provider's payments is, where it is one."""
    return {row["intent_id"]: row["id"] for row in await connection.fetch(BY_INTENT, tenant_id, intents)}


async def payments_of_sources(connection: Connection, tenant_id: UUID, sources: Sequence[str]) -> Mapping[str, UUID]:
    """Which payment of the tenant caused a movement, by the charge, refund or dispute that the movement names."""
    return {row["source_id"]: row["id"] for row in await connection.fetch(BY_SOURCE, tenant_id, sources)}


async def entries_of_payments(
    connection: Connection, tenant_id: UUID, payments: Sequence[UUID]
) -> Mapping[UUID, Sequence[Entry]]:
    """All that our ledger has of these payments."""
    entries: dict[UUID, list[Entry]] = {}
    for row in await connection.fetch(ENTRIES_OF, tenant_id, payments):
        entries.setdefault(row["payment_id"], []).append(ENTRIES.decode(row))
    return entries
