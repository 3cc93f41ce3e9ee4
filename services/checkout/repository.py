"""All SQL of the checkout service."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Text, Uuid, bindparam, or_, select

from libs.common.database import Connection, Rows, Statement
from libs.common.tenancy import Tenant
from services.checkout import tables
from services.checkout.domain.saga import CartClaim, Checkout, Order, OrderCounter
from services.checkout.domain.stock import Stock

TENANTS = Rows(tables.TENANT, Tenant)
CLAIMS = Rows(tables.CART_CLAIM, CartClaim)
CHECKOUTS = Rows(tables.CHECKOUT, Checkout)
ORDERS = Rows(tables.ORDER, Order)
STOCK = Rows(tables.STOCK, Stock)
COUNTERS = Rows(tables.ORDER_COUNTER, OrderCounter)

ROWS = (TENANTS, CLAIMS, CHECKOUTS, ORDERS, STOCK, COUNTERS)
"""Every aggregate of this service, in the order in which they are locked: the counter last, for the shortest time."""

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
_STOCK = Statement(
    select(tables.STOCK)
    .where(tables.STOCK.c.tenant_id == bindparam("tenant_id"), tables.STOCK.c.sku > bindparam("after"))
    .order_by(tables.STOCK.c.sku)
    .limit(bindparam("limit", type_=BigInteger))
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


async def stock(connection: Connection, tenant_id: UUID, *, after: str, limit: int) -> Sequence[Stock]:
    """One page of stock, by SKU."""
    rows = await _STOCK.fetch(connection, tenant_id=tenant_id, after=after, limit=limit)
    return [STOCK.decode(row) for row in rows]
