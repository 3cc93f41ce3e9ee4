"""Payments, the attempts beneath them, and the operations asked of the provider."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, select

from libs.common.database import Connection, Rows, Statement
from libs.common.tenancy import Tenant
from services.payments import tables
from services.payments.domain.attempt import Attempt
from services.payments.domain.operation import UNKNOWN_WAITS, Operation
from services.payments.domain.payment import OrderPayment, Payment

TENANTS = Rows(tables.TENANT, Tenant)
PAYMENTS = Rows(tables.PAYMENT, Payment)
ATTEMPTS = Rows(tables.ATTEMPT, Attempt)
ORDER_PAYMENTS = Rows(tables.ORDER_PAYMENT, OrderPayment)
OPERATIONS = Rows(tables.OPERATION, Operation)


@cache
def _payments_where(*columns: str) -> Statement:
    """One statement for each combination of filters, so that each has the index it needs."""
    table = tables.PAYMENT
    query = select(table).where(table.c.tenant_id == bindparam("tenant_id"), table.c.id > bindparam("after"))
    for column in columns:
        query = query.where(table.c[column] == bindparam(f"the_{column}"))
    return Statement(query.order_by(table.c.id).limit(bindparam("limit")))


async def payments(
    connection: Connection, tenant_id: UUID, filters: Mapping[str, Any], *, after: UUID, limit: int
) -> Sequence[Payment]:
    """One page of a tenant's payments by id, of those whose columns are as the filters say."""
    statement = _payments_where(*sorted(filters))
    values = {f"the_{column}": value for column, value in filters.items()}
    rows = await statement.fetch(connection, tenant_id=tenant_id, after=after, limit=limit, **values)
    return [PAYMENTS.decode(row) for row in rows]


DUE = "SELECT tenant_id, id FROM operations_due($1)"

CLAIM = """UPDATE operation o SET tries = o.tries + 1, due_at = now() + $4::interval, version = o.version + 1
FROM (SELECT c.tenant_id, c.id FROM operation c JOIN unnest($1::uuid[], $2::uuid[], $3::integer[]) AS k(tenant_id, id, tries)
          ON c.tenant_id = k.tenant_id AND c.id = k.id
      WHERE c.due_at <= now() OR (c.due_at IS NOT NULL AND c.tries = k.tries) FOR UPDATE OF c SKIP LOCKED) AS free
WHERE o.tenant_id = free.tenant_id AND o.id = free.id RETURNING o.*"""

GIVE_BACK = """UPDATE operation o SET due_at = now(), version = o.version + 1
FROM unnest($1::uuid[], $2::uuid[], $3::integer[]) AS k(tenant_id, id, tries)
WHERE o.tenant_id = k.tenant_id AND o.id = k.id AND o.tries = k.tries AND o.due_at > now()"""

OPEN = "SELECT open_count, oldest_seconds FROM operations_open()"


async def due_operations(connection: Connection, how_many: int) -> Sequence[tuple[UUID, UUID]]:
    """Open operations, whosever they are, that nobody has any more: (tenant, id), the longest due first."""
    return [(row["tenant_id"], row["id"]) for row in await connection.fetch(DUE, how_many)]


async def claim_operations(
    connection: Connection, due: Sequence[tuple[UUID, UUID]], own: Sequence[Operation], lease: timedelta
) -> Sequence[Operation]:
    """Take up what is still due, and again what is still our own; for so long, and without waiting for anybody."""
    wanted = [*((*key, 0) for key in due), *((each.tenant_id, each.id, each.tries) for each in own)]
    tenants, keys, tries = zip(*wanted, strict=True)
    rows = await connection.fetch(CLAIM, tenants, keys, tries, lease)
    return [OPERATIONS.decode(row) for row in rows]


async def give_back_operations(connection: Connection, operations: Sequence[Operation]) -> None:
    """Let somebody else take these up at once. Whatever was sent is repeated under the same key."""
    await connection.execute(
        GIVE_BACK,
        [operation.tenant_id for operation in operations],
        [operation.id for operation in operations],
        [operation.tries for operation in operations],
    )


async def open_operations(connection: Connection) -> tuple[int, float]:
    """How many operations are open, and for how many seconds the oldest of them has been."""
    row = await connection.fetchrow(OPEN)
    return (row["open_count"], row["oldest_seconds"]) if row else (0, 0.0)


DUE_PAYMENTS = "SELECT tenant_id, id FROM payments_due($1)"

WATCHED = "SELECT unknown_count, oldest_unknown_seconds, queued_count, challenged_count FROM payments_watched($1)"

UNKNOWN = """SELECT id FROM operation WHERE tenant_id = $1 AND payment_id = $2 AND state = 'unknown' ORDER BY id"""


async def due_payments(connection: Connection, how_many: int) -> Sequence[tuple[UUID, UUID]]:
    """Payments, whosever they are, that nothing was heard of for too long: (tenant, id), the longest due first."""
    return [(row["tenant_id"], row["id"]) for row in await connection.fetch(DUE_PAYMENTS, how_many)]


async def unknown_operations(connection: Connection, tenant_id: UUID, payment_id: UUID) -> Sequence[UUID]:
    """The operations of a payment, its refunds' among them, whose outcome nobody knows."""
    return [row["id"] for row in await connection.fetch(UNKNOWN, tenant_id, payment_id)]


@dataclass(frozen=True, slots=True)
class Watched:
    """What an operator keeps an eye on, over all tenants."""

    unknown_count: int
    oldest_unknown_seconds: float
    queued_count: int
    """Of the unknown ones, those whose ladder has ended: a person must look into them."""
    challenged_count: int
    """Payments that wait for their payer."""


async def watched(connection: Connection) -> Watched:
    """How many outcomes are unknown and since when, and how many payments wait for a person."""
    row = await connection.fetchrow(WATCHED, len(UNKNOWN_WAITS))
    return Watched(**row) if row else Watched(0, 0.0, 0, 0)
