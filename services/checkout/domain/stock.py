"""Stock: what is free to sell, held and sold, at each location. Every move keeps the books."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from libs.common.errors import ConflictError
from libs.common.messaging.decision import Aggregate


@dataclass(frozen=True, kw_only=True, slots=True)
class Allocation:
    """So many of a product, held at one location for one checkout."""

    sku: str
    location: str
    quantity: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """A product's stock at one location."""

    on_hand: int = 0
    """Free to sell."""
    reserved: int = 0
    sold: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Stock(Aggregate):
    """A product's stock over all locations. Always adjusted = on hand + reserved + sold, and none below zero."""

    KEY: ClassVar[str] = "sku"
    sku: str
    on_hand: int = 0
    reserved: int = 0
    sold: int = 0
    adjusted: int = 0
    """The sum of everything that ever came and went by inventory's word."""
    levels: dict[str, Level] = field(default_factory=dict)
    inventory_sequence: int = 0


class SequenceGapError(ConflictError):
    """A delta arrived before its predecessor: applying it would lose count of one of them."""


def reserve(stock: Stock | None, quantity: int) -> tuple[Stock, list[Allocation]] | None:
    """Hold so many, from the locations in order; None when there are not enough."""
    if stock is None or stock.on_hand < quantity:
        return None
    allocations: list[Allocation] = []
    missing = quantity
    for location in sorted(stock.levels):
        taken = min(missing, stock.levels[location].on_hand)
        if taken:
            allocations.append(Allocation(sku=stock.sku, location=location, quantity=taken))
            missing -= taken
    for allocation in allocations:
        stock = _shift(stock, allocation.location, on_hand=-allocation.quantity, reserved=allocation.quantity)
    return stock, allocations


def sell(stock: Stock, allocation: Allocation) -> Stock:
    """What was held is sold."""
    return _shift(stock, allocation.location, reserved=-allocation.quantity, sold=allocation.quantity)


def release(stock: Stock, allocation: Allocation) -> Stock:
    """What was held is free again."""
    return _shift(stock, allocation.location, reserved=-allocation.quantity, on_hand=allocation.quantity)


def count(stock: Stock, location: str, quantity: int, sequence: int) -> Stock:
    """Take an absolute count as the adjustment it implies. Fewer than are reserved leaves nothing free to sell."""
    if sequence <= stock.inventory_sequence:
        return stock
    level = stock.levels.get(location, Level())
    delta = max(quantity - level.reserved, 0) - level.on_hand
    return _adjust(stock, location, delta, sequence)


def adjust(stock: Stock, location: str, delta: int, sequence: int) -> Stock:
    """Goods came or went. Raises SequenceGapError when the event before this one has not been seen."""
    if sequence <= stock.inventory_sequence:
        return stock
    if sequence > stock.inventory_sequence + 1:
        detail = f"{stock.sku} is at {stock.inventory_sequence} and cannot take {sequence} before what lies between"
        raise SequenceGapError("gap", detail)
    return _adjust(stock, location, max(delta, -stock.levels.get(location, Level()).on_hand), sequence)


def skip(stock: Stock, sequence: int) -> Stock:
    """Count an event as seen without taking it."""
    return replace(stock, inventory_sequence=max(sequence, stock.inventory_sequence))


def _adjust(stock: Stock, location: str, delta: int, sequence: int) -> Stock:
    shifted = _shift(stock, location, on_hand=delta)
    return replace(shifted, adjusted=stock.adjusted + delta, inventory_sequence=sequence)


def _shift(stock: Stock, location: str, *, on_hand: int = 0, reserved: int = 0, sold: int = 0) -> Stock:
    """Move goods between a location's three columns, and the product's totals with them."""
    level = stock.levels.get(location, Level())
    moved = Level(on_hand=level.on_hand + on_hand, reserved=level.reserved + reserved, sold=level.sold + sold)
    return replace(
        stock,
        on_hand=stock.on_hand + on_hand,
        reserved=stock.reserved + reserved,
        sold=stock.sold + sold,
        levels={**stock.levels, location: moved},
    )
