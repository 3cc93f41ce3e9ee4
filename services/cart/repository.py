"""All SQL of the cart service."""

from libs.common.database import Projection, Rows
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
