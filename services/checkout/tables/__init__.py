"""The checkout service's tables. The tenant leads every key; what must never be is a constraint."""

from services.checkout.tables.checkouts import CART_CLAIM, CHECKOUT, DECLINES, STRAY_MONEY, TENANT
from services.checkout.tables.drops import DROP, DROP_PLACE
from services.checkout.tables.holdings import HOLDINGS
from services.checkout.tables.metadata import METADATA
from services.checkout.tables.orders import NOTE, ORDER, ORDER_COUNTER, ORDER_TERM, REFUND
from services.checkout.tables.quoting import SHIPPING_METHOD, TAX_TABLE
from services.checkout.tables.stock import STOCK
from services.checkout.tables.timeline import TIMELINE, TIMELINE_REBUILD

__all__ = [
    "CART_CLAIM",
    "CHECKOUT",
    "DECLINES",
    "DROP",
    "DROP_PLACE",
    "HOLDINGS",
    "METADATA",
    "NOTE",
    "ORDER",
    "ORDER_COUNTER",
    "ORDER_TERM",
    "REFUND",
    "SHIPPING_METHOD",
    "STOCK",
    "STRAY_MONEY",
    "TAX_TABLE",
    "TENANT",
    "TIMELINE",
    "TIMELINE_REBUILD",
]
