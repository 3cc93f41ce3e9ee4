"""How products are to be had, roughly, as checkout tells: shown beside a line, and never a promise."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar

from libs.common.contracts.checkout import StockAvailabilityChanged
from libs.common.decision import Aggregate


class Availability(StrEnum):
    """How a product is to be had."""

    IN_STOCK = "in_stock"
    LOW_STOCK = "low_stock"
    BACKORDER = "backorder"
    """There is none at present, and whoever orders it gets it when there is."""
    OUT_OF_STOCK = "out_of_stock"
    UNKNOWN = "unknown"
    """Nobody has counted it yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StockHint(Aggregate):
    """The last that was heard of a product's stock."""

    KEY: ClassVar[str] = "sku"
    OWNER: ClassVar[str | None] = None
    sku: str
    availability: Availability = Availability.UNKNOWN
    told_sequence: int = 0
    """The number of the event that said so."""


def tell(hint: StockHint, fact: StockAvailabilityChanged, sequence: int) -> StockHint:
    """Take what is told, unless something newer is known."""
    if sequence <= hint.told_sequence:
        return hint
    return replace(hint, availability=Availability(fact.availability), told_sequence=sequence)
