"""HTTP in: checkouts, the orders they become, and stock."""

from libs.common.http.audit import audit_routes
from libs.common.http.parked import parked_routes
from libs.common.http.routes import Facing, Routes
from services.checkout.api import checkouts, drops, exports, lookups, orders, progress, quoting, refunds, stock, timeline

ROUTES = Routes(Facing.CUSTOMERS)
for part in (checkouts, progress, drops, orders, timeline, refunds, lookups, quoting, stock, exports):
    ROUTES.include_router(part.ROUTES)
ROUTES.include_router(parked_routes("checkout"))
ROUTES.include_router(audit_routes())
