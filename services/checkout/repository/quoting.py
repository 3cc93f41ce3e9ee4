"""Shipping methods and tax rates."""

from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from sqlalchemy import BigInteger, bindparam, select

from libs.common.database import Connection, Rows, Statement
from services.checkout import tables
from services.checkout.domain.shipping import ShippingMethod
from services.checkout.domain.tax import TaxRate, TaxTable

SHIPPING_METHODS = Rows(tables.SHIPPING_METHOD, ShippingMethod)
TAX_TABLES = Rows(tables.TAX_TABLE, TaxTable)

_METHODS = Statement(
    select(tables.SHIPPING_METHOD)
    .where(tables.SHIPPING_METHOD.c.tenant_id == bindparam("tenant_id"), tables.SHIPPING_METHOD.c.code > bindparam("after"))
    .where(tables.SHIPPING_METHOD.c.deleted_at.is_(None))
    .order_by(tables.SHIPPING_METHOD.c.code)
    .limit(bindparam("limit", type_=BigInteger))
)

RATES = """SELECT t.country, r.key AS category, r.value ->> 'name' AS name, r.value ->> 'rate' AS rate
FROM tax_table t CROSS JOIN LATERAL jsonb_each(t.rates) AS r
WHERE t.tenant_id = $1 AND (t.country, r.key) > ($2, $3) AND ($4::text IS NULL OR t.country = $4)
ORDER BY t.country, r.key LIMIT $5"""


async def shipping_methods(connection: Connection, tenant_id: UUID, *, after: str, limit: int) -> Sequence[ShippingMethod]:
    """One page of a tenant's shipping methods, by code."""
    rows = await _METHODS.fetch(connection, tenant_id=tenant_id, after=after, limit=limit)
    return [SHIPPING_METHODS.decode(row) for row in rows]


async def tax_rates(
    connection: Connection, tenant_id: UUID, *, after: tuple[str, str], country: str | None, limit: int
) -> Sequence[tuple[str, str, TaxRate]]:
    """One page of a tenant's tax rates as (country, category, rate), in that order."""
    rows = await connection.fetch(RATES, tenant_id, *after, country, limit)
    return [(row["country"], row["category"], TaxRate(name=row["name"], rate=Decimal(row["rate"]))) for row in rows]
