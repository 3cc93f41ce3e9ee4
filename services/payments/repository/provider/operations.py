"""Operations asked of the provider: taken up, given back, and those whose outcome nobody knows."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from libs.common.database import Connection, Rows, fetch
from services.payments import tables
from services.payments.domain.provider.operation import Operation
from services.payments.repository.bookmark import Bookmark

OPERATIONS = Rows(tables.OPERATION, Operation)

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
    connection: Connection, due: Sequence[tuple[UUID, UUID]], own: Sequence[Operation], lease: timedelta, *, ends: bool = False
) -> Sequence[Operation]:
    """Take up what is still due, and again what is still our own; for so long, and without waiting for anybody."""
    wanted = [*((*key, 0) for key in due), *((each.tenant_id, each.id, each.tries) for each in own)]
    tenants, keys, tries = zip(*wanted, strict=True)
    rows = await fetch(connection, CLAIM, tenants, keys, tries, lease, ends=ends)
    return [OPERATIONS.decode(row) for row in rows]


async def give_back_operations(connection: Connection, operations: Sequence[Operation], *, ends: bool = False) -> None:
    """Let somebody else take these up at once. Whatever was sent is repeated under the same key."""
    await fetch(
        connection,
        GIVE_BACK,
        [operation.tenant_id for operation in operations],
        [operation.id for operation in operations],
        [operation.tries for operation in operations],
        ends=ends,
    )


async def open_operations(connection: Connection) -> tuple[int, float]:
    """How many operations are open, and for how many seconds the oldest of them has been."""
    row = await connection.fetchrow(OPEN)
    return (row["open_count"], row["oldest_seconds"]) if row else (0, 0.0)


# --- Outcomes that nobody knows -----------------------------------------------------------------------------------

UNKNOWN_OF_PAYMENT = """SELECT id FROM operation WHERE tenant_id = $1 AND payment_id = $2 AND state = 'unknown' ORDER BY id"""

UNKNOWN = "SELECT tenant_id, id, first_send_at FROM operations_unknown($1, $2, $3, $4)"


async def unknown_of_payment(connection: Connection, tenant_id: UUID, payment_id: UUID) -> Sequence[UUID]:
    """The operations of a payment, its refunds' among them, whose outcome nobody knows."""
    return [row["id"] for row in await connection.fetch(UNKNOWN_OF_PAYMENT, tenant_id, payment_id)]


async def unknown_operations(
    connection: Connection, tenant_id: UUID | None, *, after: Bookmark, limit: int
) -> Mapping[tuple[UUID, UUID], Bookmark]:
    """Operations whose outcome nobody knows, whosever they are: (tenant, id), and where each stands, the oldest first."""
    rows = await connection.fetch(UNKNOWN, tenant_id, *after, limit)
    return {(row["tenant_id"], row["id"]): Bookmark(row["first_send_at"], row["id"]) for row in rows}
