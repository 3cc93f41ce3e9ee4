"""Shipping methods and tax rates."""

from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from libs.common.database import Connection, Rows
from services.checkout import tables
from services.checkout.domain.shipping import ShippingMethod
from services.checkout.domain.tax import TaxRate, TaxTable

SHIPPING_METHODS = Rows(tables.SHIPPING_METHOD, ShippingMethod)
TAX_TABLES = Rows(tables.TAX_TABLE, TaxTable)

RATES = """SELECT t.country, r.key AS category, r.value ->> 'name' AS name, r.value ->> 'rate' AS rate
FROM tax_table t CROSS JOIN LATERAL jsonb_each(t.rates) AS r
WHERE t.tenant_id = $1 AND (t.country, r.key) > ($2, $3) AND ($4::text IS NULL OR t.country = $4)
ORDER BY t.country, r.key LIMIT $5"""


async def tax_rates(
    connection: Connection, tenant_id: UUID, *, after: Sequence[str], country: str | None, limit: int
) -> Sequence[tuple[str, str, TaxRate]]:
    """One page of a tenant's tax rates as (country, category, rate), in that order."""
    rows = await connection.fetch(RATES, tenant_id, *after, country, limit)
    return [(row["country"], row["category"], TaxRate(name=row["name"], rate=Decimal(row["rate"]))) for row in rows]
