"""Events of the inventory system (`inventory.v1`), which is not ours: its input is not to be trusted."""

from typing import Literal

from libs.common.contracts import Event, event
from libs.common.contracts.external import Count, Delta, Line, Name, Sku


@event("inventory.v1", "stock.counted", aggregate="sku")
class StockCounted(Event):
    """What a count of the shelf found: absolute, sold and shipped goods are no longer in it."""

    sku: Sku
    location: Name
    quantity: Count
    basis: Literal["free", "physical"] | None = None
    """`physical`: all that lay there, with what is sold and has not been sent yet. Absent: `free`, without what is sold."""


@event("inventory.v1", "stock.adjusted", aggregate="sku")
class StockAdjusted(Event):
    """Goods came or went by another door than a sale."""

    sku: Sku
    location: Name
    delta: Delta
    reason: Line
