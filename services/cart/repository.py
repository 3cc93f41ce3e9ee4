"""All SQL of the cart service."""

from collections.abc import Iterable
from uuid import UUID

from libs.common.database import Connection, Projection, Rows
from libs.common.database.statements import select
from libs.common.tenancy import Tenant
from services.cart import tables
from services.cart.domain import Cart, Product

TENANTS = Rows(tables.TENANT, Tenant)
PRODUCTS = Rows(tables.PRODUCT, Product, lenient={"prices"})
"""A price that cannot be read is none: its product is not sold in that currency, and the others are."""
CARTS = Rows(tables.CART, Cart)

PROJECTIONS = (Projection("products", PRODUCTS, Rows(tables.PRODUCT_REBUILD, Product, lenient={"prices"}), ("catalog.v1",)),)
"""What can be rebuilt from topics alone."""

ROWS = (TENANTS, CARTS, PRODUCTS)
"""Every aggregate of this service, in the order in which they are locked."""


async def products_of(connection: Connection, tenant_id: UUID, carts: Iterable[Cart]) -> dict[str, Product]:
    """What stands on the carts' lines, by SKU. What cannot be read is left out."""
    skus = sorted({line.sku for cart in carts for line in cart.lines})
    if not skus:
        return {}
    [found] = await select(connection, [PRODUCTS.wanted([(tenant_id, sku) for sku in skus], lock=False)])
    return {each.sku: each for each in PRODUCTS.judged(found) if isinstance(each, Product)}
