"""Which command or event goes to which decision, and what is loaded for it."""

from services.checkout.handlers import checkouts, orders, payments, quoting, refunds, stock, tenants, timeline
from services.checkout.handlers.caller import Caller
from services.checkout.handlers.checkouts import CancelCheckout, ResumeCheckout, StartCheckout
from services.checkout.handlers.table import HANDLERS

APART = {"timeline": timeline.TIMELINE}
"""The projections that consumer groups of their own keep, by name, and what writes each."""

__all__ = [
    "APART",
    "HANDLERS",
    "Caller",
    "CancelCheckout",
    "ResumeCheckout",
    "StartCheckout",
    "checkouts",
    "orders",
    "payments",
    "quoting",
    "refunds",
    "stock",
    "tenants",
    "timeline",
]
