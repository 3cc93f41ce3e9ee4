"""Events of the inventory system (`inventory.v1`), which is not ours: its input is not to be trusted."""

from typing import Annotated

from annotated_types import Ge, Le, MaxLen

from libs.common.contracts import Event, Sku, Text, event

Location = Annotated[str, MaxLen(64)]


@event("inventory.v1", "stock.counted", aggregate="sku")
class StockCounted(Event):
    """What a count of the shelf found: absolute, sold and shipped goods are no longer in it."""

    sku: Sku
    location: Location
    quantity: Annotated[int, Ge(0), Le(1_000_000_000)]


@event("inventory.v1", "stock.adjusted", aggregate="sku")
class StockAdjusted(Event):
    """Goods came or went by another door than a sale."""

    sku: Sku
    location: Location
    delta: Annotated[int, Ge(-1_000_000_000), Le(1_000_000_000)]
    reason: Text
