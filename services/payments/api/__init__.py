"""HTTP in: payments to look at and to act upon, and the books. Payments are made by `payment.requested` alone."""

from libs.common.http.audit import audit_routes
from libs.common.http.parked import parked_routes
from libs.common.http.routes import Facing, Routes
from services.payments.api import (
    accounts,
    connections,
    disputes,
    exports,
    ledger,
    operations,
    payments,
    reconciliations,
    refunds,
    reviews,
    webhooks,
)

ROUTES = Routes(Facing.CUSTOMERS)
for part in (
    payments.ROUTES,
    refunds.ROUTES,
    reviews.ROUTES,
    disputes.ROUTES,
    ledger.ROUTES,
    reconciliations.ROUTES,
    operations.ROUTES,
    accounts.ROUTES,
    connections.ROUTES,
    webhooks.ROUTES,
    exports.ROUTES,
    parked_routes("payments"),
    audit_routes(),
):
    ROUTES.include_router(part)
