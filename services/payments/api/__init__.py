"""HTTP in: payments to look at and to act upon. They are made by `payment.requested` alone."""

from libs.common.http.routes import Routes
from services.payments.api import payments

ROUTES = Routes()
for part in (payments.ROUTES,):
    ROUTES.include_router(part)
