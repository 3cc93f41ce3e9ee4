"""All SQL of the checkout service."""

from services.checkout.repository import checkouts, drops, orders, quoting, stock, timeline
from services.checkout.repository.checkouts import CHECKOUTS, CLAIMS, DECLINES, STRAYS, TENANTS
from services.checkout.repository.drops import DROPS, PLACES
from services.checkout.repository.orders import COUNTERS, NOTES, ORDERS, REFUNDS
from services.checkout.repository.quoting import SHIPPING_METHODS, TAX_TABLES
from services.checkout.repository.stock import STOCK

ROWS = (
    *(TENANTS, SHIPPING_METHODS, TAX_TABLES, CLAIMS, CHECKOUTS, STRAYS, ORDERS, REFUNDS, NOTES, DROPS, PLACES),
    *(STOCK, DECLINES, COUNTERS),
)
"""Every aggregate of this service, in the order in which they are locked: the counter last, for the shortest time."""

__all__ = [
    "CHECKOUTS",
    "CLAIMS",
    "COUNTERS",
    "DECLINES",
    "DROPS",
    "NOTES",
    "ORDERS",
    "PLACES",
    "REFUNDS",
    "ROWS",
    "SHIPPING_METHODS",
    "STOCK",
    "STRAYS",
    "TAX_TABLES",
    "TENANTS",
    "checkouts",
    "drops",
    "orders",
    "quoting",
    "stock",
    "timeline",
]
