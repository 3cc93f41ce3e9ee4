"""Which command or event goes to which decision, and what is loaded for it."""

from services.checkout.handlers import (
    card_testing,
    checkouts,
    drops,
    orders,
    payments,
    quoting,
    refunds,
    stock,
    tenants,
    timeline,
)
from services.checkout.handlers.checkouts import CancelCheckout, ResumeCheckout, StartCheckout
from services.checkout.handlers.table import HANDLERS

__all__ = [
    "HANDLERS",
    "CancelCheckout",
    "ResumeCheckout",
    "StartCheckout",
    "card_testing",
    "checkouts",
    "drops",
    "orders",
    "payments",
    "quoting",
    "refunds",
    "stock",
    "tenants",
    "timeline",
]
