"""Orders, the counter of their numbers, their refunds and notes."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Table, Text, and_, bindparam, func, select

from libs.common.database import Connection, Rows, Statement
from services.checkout import tables
from services.checkout.domain.note import Note
from services.checkout.domain.order import Order, OrderCounter
from services.checkout.domain.refund import Refund

ORDERS = Rows(tables.ORDER, Order)
COUNTERS = Rows(tables.ORDER_COUNTER, OrderCounter)
REFUNDS = Rows(tables.REFUND, Refund)
NOTES = Rows(tables.NOTE, Note)

_TERM = "IN (SELECT o.number FROM order_term o WHERE o.tenant_id = $1 AND o.kind = '{}' AND o.term = {{}})"
HAS_SKU, HAS_EMAIL = (f"number {_TERM.format(kind)}" for kind in ("sku", "email"))
"""For `where`: orders with a line of this SKU, and those that this address placed, written in small letters."""

_order = tables.ORDER.c


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
