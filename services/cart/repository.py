"""All SQL of the cart service."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import bindparam, select

from libs.common.database import Connection, Projection, Rows, Statement
from libs.common.tenancy import Tenant
from services.cart import tables
from services.cart.domain import Cart, Product

TENANTS = Rows(tables.TENANT, Tenant)
PRODUCTS = Rows(tables.PRODUCT, Product)
CARTS = Rows(tables.CART, Cart)

PROJECTIONS = (Projection("products", PRODUCTS, Rows(tables.PRODUCT_REBUILD, Product), ("catalog.v1",)),)
"""What can be rebuilt from topics alone."""

ROWS = (TENANTS, CARTS, PRODUCTS)
"""Every aggregate of this service, in the order in which they are locked."""

_CARTS_OF_SUBJECT = Statement(
    select(tables.CART)
    .where(tables.CART.c.tenant_id == bindparam("tenant_id"), tables.CART.c.subject_id == bindparam("subject_id"))
    .where(tables.CART.c.id > bindparam("after"))
    .order_by(tables.CART.c.id)
    .limit(bindparam("limit"))
)
_PRODUCTS = Statement(
    select(tables.PRODUCT)
    .where(tables.PRODUCT.c.tenant_id == bindparam("tenant_id"), tables.PRODUCT.c.sku > bindparam("after"))
    .order_by(tables.PRODUCT.c.sku)
    .limit(bindparam("limit"))
)


async def carts_of_subject(
    connection: Connection, tenant_id: UUID, subject_id: UUID, *, after: UUID, limit: int
) -> Sequence[Cart]:
    """One page of a shopper's carts, by id."""
    rows = await _CARTS_OF_SUBJECT.fetch(connection, tenant_id=tenant_id, subject_id=subject_id, after=after, limit=limit)
    return [CARTS.decode(row) for row in rows]


async def products(connection: Connection, tenant_id: UUID, *, after: str, limit: int) -> Sequence[Product]:
    """One page of a tenant's products, by SKU."""
    rows = await _PRODUCTS.fetch(connection, tenant_id=tenant_id, after=after, limit=limit)
    return [PRODUCTS.decode(row) for row in rows]
