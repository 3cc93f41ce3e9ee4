"""All SQL of the cart service."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from libs.common.database import Connection, Projection, Rows
from libs.common.database.statements import select
from libs.common.tenancy import Tenant
from services.cart import tables
from services.cart.domain import Cart, Offers, Product, Promotion, StockHint

TENANTS = Rows(tables.TENANT, Tenant)
PRODUCTS = Rows(tables.PRODUCT, Product, lenient={"prices"})
"""A price that cannot be read is none: its product is not sold in that currency, and the others are."""
CARTS = Rows(tables.CART, Cart)
PROMOTIONS = Rows(tables.PROMOTION, Promotion)
OFFERS = Rows(tables.OFFERS, Offers)
STOCK_HINTS = Rows(tables.STOCK_HINT, StockHint)

PROJECTIONS = (Projection("products", PRODUCTS, Rows(tables.PRODUCT_REBUILD, Product, lenient={"prices"}), ("catalog.v1",)),)
"""What can be rebuilt from topics alone."""

ROWS = (TENANTS, CARTS, PRODUCTS, PROMOTIONS, OFFERS, STOCK_HINTS)
"""Every aggregate of this service, in the order in which they are locked."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What carts are shown with, as it is at this moment. What cannot be read is left out."""

    products: Mapping[str, Product]
    hints: Mapping[str, StockHint]
    promotions: Sequence[Promotion]


async def surroundings(connection: Connection, tenant_id: UUID, carts: Collection[Cart]) -> Surroundings:
    """What stands on the carts' lines, by SKU, and the promotions that may be given to them.

    One statement, and for a tenant with promotions, or a cart with coupons, a second.
    """
    skus = sorted({line.sku for cart in carts for line in cart.lines})
    if not skus and not any(cart.coupons for cart in carts):
        return Surroundings({}, {}, ())
    places = [(tenant_id, sku) for sku in skus] or [(tenant_id, "")]
    wanted = [PRODUCTS.wanted(places, lock=False), STOCK_HINTS.wanted(places, lock=False)]
    products, hints, offers = await select(connection, [*wanted, OFFERS.wanted([(tenant_id, tenant_id)], lock=False)])
    automatic = {code for each in OFFERS.judged(offers) if isinstance(each, Offers) for code in each.automatic}
    codes = sorted(automatic | {code for cart in carts for code in cart.coupons})
    found = await select(connection, [PROMOTIONS.wanted([(tenant_id, code) for code in codes], lock=False)]) if codes else [()]
    return Surroundings(
        {each.sku: each for each in PRODUCTS.judged(products) if isinstance(each, Product)},
        {each.sku: each for each in STOCK_HINTS.judged(hints) if isinstance(each, StockHint)},
        [each for each in PROMOTIONS.judged(found[0]) if isinstance(each, Promotion)],
    )
