"""Refunds, what is due to be looked into, and money that belongs to no order."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from libs.common.database import Connection, Rows
from services.payments import tables
from services.payments.domain.money.refund import WAITS, Refund

REFUNDS = Rows(tables.REFUND, Refund)

DUE = "SELECT tenant_id, id FROM refunds_due($1)"

# The next look is set with the claim: whatever this one comes to, nobody takes it up before.
CLAIM = """UPDATE refund r SET looks = r.looks + 1, version = r.version + 1,
    due_at = now() + ($3::interval[])[least(r.looks + 2, cardinality($3::interval[]))]
FROM (SELECT c.tenant_id, c.id FROM refund c JOIN unnest($1::uuid[], $2::uuid[]) AS k(tenant_id, id)
          ON c.tenant_id = k.tenant_id AND c.id = k.id
      WHERE c.due_at <= now() FOR UPDATE OF c SKIP LOCKED) AS free
WHERE r.tenant_id = free.tenant_id AND r.id = free.id RETURNING r.*"""

ORPHANED = "SELECT tenant_id, id FROM orphan_money($1, $2)"
OLDEST_ORPHAN = "SELECT payment_count, oldest_seconds FROM orphan_money_age()"


async def due_refunds(connection: Connection, how_many: int) -> Sequence[tuple[UUID, UUID]]:
    """Refunds, whosever they are, that nothing was heard of for too long: (tenant, id), the longest due first."""
    return [(row["tenant_id"], row["id"]) for row in await connection.fetch(DUE, how_many)]


async def claim_refunds(connection: Connection, due: Sequence[tuple[UUID, UUID]]) -> Sequence[Refund]:
    """Take up what is still due, and say when it is due next; without waiting for anybody."""
    rows = await connection.fetch(CLAIM, [tenant for tenant, _ in due], [key for _, key in due], list(WAITS))
    return [REFUNDS.decode(row) for row in rows]


async def orphan_money(connection: Connection, older_than: timedelta, how_many: int) -> Sequence[tuple[UUID, UUID]]:
    """Captured payments that belong to no order and were captured longer ago: (tenant, payment), the oldest first."""
    return [(row["tenant_id"], row["id"]) for row in await connection.fetch(ORPHANED, older_than, how_many)]


async def orphan_age(connection: Connection) -> tuple[int, float]:
    """How many payments such money is of, and for how many seconds we have had the oldest of it."""
    row = await connection.fetchrow(OLDEST_ORPHAN)
    return (row["payment_count"], row["oldest_seconds"]) if row else (0, 0.0)
