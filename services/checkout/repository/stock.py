"""Stock."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import BigInteger, bindparam, select

from libs.common.database import Connection, Rows, Statement
from services.checkout import tables
from services.checkout.domain.stock import Stock

STOCK = Rows(tables.STOCK, Stock)

_STOCK = Statement(
    select(tables.STOCK)
    .where(tables.STOCK.c.tenant_id == bindparam("tenant_id"), tables.STOCK.c.sku > bindparam("after"))
    .order_by(tables.STOCK.c.sku)
    .limit(bindparam("limit", type_=BigInteger))
)


async def stock(connection: Connection, tenant_id: UUID, *, after: str, limit: int) -> Sequence[Stock]:
    """One page of stock, by SKU."""
    rows = await _STOCK.fetch(connection, tenant_id=tenant_id, after=after, limit=limit)
    return [STOCK.decode(row) for row in rows]
