"""HTTP in: carts for shoppers, the products that may go in them, and what is taken off."""

from libs.common.http.audit import audit_routes
from libs.common.http.exports import export_routes
from libs.common.http.parked import parked_routes
from libs.common.http.routes import Facing, Routes
from services.cart import tables
from services.cart.api import carts, lines, products, promotions

ROUTES = Routes(Facing.CUSTOMERS)
for part in (carts, lines, promotions, products):
    ROUTES.include_router(part.ROUTES)
ROUTES.include_router(parked_routes("cart"))
ROUTES.include_router(audit_routes())
ROUTES.include_router(export_routes("cart", tables.HOLDINGS))
