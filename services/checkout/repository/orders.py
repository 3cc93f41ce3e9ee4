"""Orders, the counter of their numbers, their refunds and notes."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Table, Text, Uuid, and_, bindparam, func, or_, select

from libs.common.database import Connection, Rows, Statement
from services.checkout import tables
from services.checkout.domain.note import Note
from services.checkout.domain.order import Order, OrderCounter
from services.checkout.domain.refund import Refund

ORDERS = Rows(tables.ORDER, Order)
COUNTERS = Rows(tables.ORDER_COUNTER, OrderCounter)
REFUNDS = Rows(tables.REFUND, Refund)
NOTES = Rows(tables.NOTE, Note)

_order = tables.ORDER.c
_ORDERS = Statement(
    select(tables.ORDER)
    .where(_order.tenant_id == bindparam("tenant_id"), _order.number < bindparam("before"))
    .where(or_(bindparam("subject_id", type_=Uuid).is_(None), _order.subject_id == bindparam("subject_id", type_=Uuid)))
    .where(or_(bindparam("state", type_=Text).is_(None), _order.state == bindparam("state", type_=Text)))
    .where(
        or_(
            bindparam("placed_after", type_=DateTime(timezone=True)).is_(None),
            _order.placed_at > bindparam("placed_after", type_=DateTime(timezone=True)),
        )
    )
    .where(
        or_(
            bindparam("placed_before", type_=DateTime(timezone=True)).is_(None),
            _order.placed_at < bindparam("placed_before", type_=DateTime(timezone=True)),
        )
    )
    .order_by(_order.number.desc())
    .limit(bindparam("limit", type_=BigInteger))
)


def _of_order(table: Table) -> Statement:
    """Everything of one order in a table, in the order of its making."""
    return Statement(
        select(table)
        .where(table.c.tenant_id == bindparam("tenant_id"), table.c.order_id == bindparam("order_id"))
        .order_by(table.c.id)
    )


_REFUNDS = _of_order(tables.REFUND)
_NOTES = _of_order(tables.NOTE)
_LOOKED_UP = Statement(
    select(tables.ORDER.c.id)
    .join(
        tables.CHECKOUT, and_(tables.CHECKOUT.c.tenant_id == tables.ORDER.c.tenant_id, tables.CHECKOUT.c.id == _order.checkout_id)
    )
    .where(_order.tenant_id == bindparam("tenant_id"), _order.number == bindparam("number"))
    .where(func.lower(tables.CHECKOUT.c.email) == func.lower(bindparam("email", type_=Text)))
)


async def orders(
    connection: Connection,
    tenant_id: UUID,
    *,
    before: int,
    limit: int,
    subject_id: UUID | None = None,
    state: str | None = None,
    placed_after: datetime | None = None,
    placed_before: datetime | None = None,
) -> Sequence[Order]:
    """One page of orders, newest first."""
    rows = await _ORDERS.fetch(
        connection,
        tenant_id=tenant_id,
        before=before,
        limit=limit,
        subject_id=subject_id,
        state=state,
        placed_after=placed_after,
        placed_before=placed_before,
    )
    return [ORDERS.decode(row) for row in rows]


async def refunds(connection: Connection, tenant_id: UUID, order_id: UUID) -> Sequence[Refund]:
    """An order's refunds, the oldest first."""
    rows = await _REFUNDS.fetch(connection, tenant_id=tenant_id, order_id=order_id)
    return [REFUNDS.decode(row) for row in rows]


async def notes(connection: Connection, tenant_id: UUID, order_id: UUID) -> Sequence[Note]:
    """An order's notes, the oldest first."""
    rows = await _NOTES.fetch(connection, tenant_id=tenant_id, order_id=order_id)
    return [NOTES.decode(row) for row in rows]


async def looked_up(connection: Connection, tenant_id: UUID, number: int, email: str) -> UUID | None:
    """The order of this number, if it was placed with this address."""
    row = await _LOOKED_UP.fetchrow(connection, tenant_id=tenant_id, number=number, email=email)
    return row["id"] if row else None
