"""Stock: what is free to sell, held and sold, at each location. Every move keeps the books.

What is sold beyond the shelf (`backorder`) stands beside the books and never in them: `promised` while its checkout is
being paid for, `owed` once it is an order. Goods that arrive go to the orders they are owed to first, and only then are
they on hand. A product that is `untracked` has no books: everybody who wants some gets some.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from libs.common.contracts.external import MAX_STEP, is_next
from libs.common.decision import Aggregate
from libs.common.errors import ConflictError, UnbelievableError


class StockPolicy(StrEnum):
    """What happens when more is wanted than there is."""

    TRACKED = "tracked"
    """It is refused."""
    BACKORDER = "backorder"
    """It is promised, and owed once sold."""
    UNTRACKED = "untracked"
    """Nobody counts: a download, a voucher, a service."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Allocation:
    """So many of a product, held at one location for one checkout."""

    sku: str
    location: str | None
    """None: they are still to come."""
    quantity: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """A product's stock at one location."""

    on_hand: int = 0
    """Free to sell."""
    reserved: int = 0
    sold: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """What a checkout holds that nobody pays for yet: its own until then, and after that anybody's who is short of it."""

    expires_at: datetime
    allocations: tuple[Allocation, ...]
    buyers: tuple[str, ...] = ()
    """Whose it is, by each thing that one buyer has: a subject, an e-mail address, a place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """How much of a product those may hold who pay nothing for it yet."""

    share_percent: int = 50
    """Of what is on the shelf for sale or for them."""
    per_buyer: int = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Stock(Aggregate):
    """A product's stock over all locations. Always adjusted = on hand + reserved + sold, and none below zero."""

    KEY: ClassVar[str] = "sku"
    OWNER: ClassVar[str | None] = None
    sku: str
    on_hand: int = 0
    reserved: int = 0
    sold: int = 0
    adjusted: int = 0
    """The sum of everything that ever came and went by inventory's word."""
    levels: dict[str, Level] = field(default_factory=dict)
    inventory_sequence: int = 0
    policy: StockPolicy = StockPolicy.TRACKED
    promised: int = 0
    """Beyond the shelf, held by checkouts."""
    owed: int = 0
    """Beyond the shelf, sold."""
    holds: dict[str, Hold] = field(default_factory=dict)
    """Reservations before payment, by checkout: the only ones that expire by time. What is being paid for has none."""

    @property
    def backordered(self) -> int:
        """How many were let go beyond the shelf and have not come yet."""
        return self.promised + self.owed


class SequenceGapError(ConflictError):
    """A delta arrived before its predecessor: applying it would lose count of one of them."""


def reserve(stock: Stock | None, quantity: int) -> tuple[Stock, list[Allocation]] | None:
    """Hold so many, from the locations in order; None when there are not enough."""
    if stock is None:
        return None
    if stock.policy is StockPolicy.UNTRACKED:
        return stock, []
    missing = max(quantity - stock.on_hand, 0)
    if missing and stock.policy is StockPolicy.TRACKED:
        return None
    allocations: list[Allocation] = []
    for location, taken in _pick(stock, quantity - missing):
        stock = _shift(stock, location, on_hand=-taken, reserved=taken)
        allocations.append(Allocation(sku=stock.sku, location=location, quantity=taken))
    if missing:
        stock = replace(stock, promised=stock.promised + missing)
        allocations.append(Allocation(sku=stock.sku, location=None, quantity=missing))
    return stock, allocations


def _pick(stock: Stock, quantity: int) -> list[tuple[str, int]]:
    """So many of what is on hand, or all there are, from the locations in order."""
    picked: list[tuple[str, int]] = []
    for location in sorted(stock.levels):
        taken = min(quantity, stock.levels[location].on_hand)
        if taken:
            picked.append((location, taken))
            quantity -= taken
    return picked


def may_hold(stock: Stock, quantity: int, buyers: Iterable[str], bounds: Bounds) -> bool:
    """Whether so many more may be held unpaid. What is still to come keeps nobody else from buying, and is not counted."""
    if stock.policy is StockPolicy.UNTRACKED:
        return True
    theirs = set(buyers)
    unpaid = sum(each.quantity for held in stock.holds.values() for each in held.allocations if each.location is not None)
    most = (stock.on_hand + unpaid) * bounds.share_percent // 100
    of_buyer = sum(1 for held in stock.holds.values() if theirs.intersection(held.buyers))
    from_shelf = min(quantity, stock.on_hand) if stock.policy is StockPolicy.BACKORDER else quantity
    return unpaid + from_shelf <= most and of_buyer < bounds.per_buyer


def hold(stock: Stock, holder: str, allocations: Iterable[Allocation], expires_at: datetime, buyers: Iterable[str] = ()) -> Stock:
    """What was just reserved is not being paid for yet, and expires."""
    held = Hold(expires_at=expires_at, allocations=tuple(allocations), buyers=tuple(buyers))
    return replace(stock, holds={**stock.holds, holder: held})


def keep(stock: Stock, holder: str) -> Stock | None:
    """The hold is being paid for now, and expires no more; None when it has been swept."""
    return _without(stock, holder) if holder in stock.holds else None


def give_up(stock: Stock, holder: str) -> Stock:
    """What is held is free again, unless it has been swept."""
    given_up = stock.holds.get(holder)
    if given_up is None:
        return stock
    for allocation in given_up.allocations:
        stock = release(stock, allocation)
    return _without(stock, holder)


def sweep(stock: Stock, now: datetime) -> Stock:
    """Give up every hold that has expired."""
    for holder in [holder for holder, held in stock.holds.items() if held.expires_at <= now]:
        stock = give_up(stock, holder)
    return stock


def _without(stock: Stock, holder: str) -> Stock:
    return replace(stock, holds={name: held for name, held in stock.holds.items() if name != holder})


def sell(stock: Stock, allocation: Allocation) -> Stock:
    """What was held is sold."""
    if allocation.location is None:
        return _settle(replace(stock, promised=stock.promised - allocation.quantity, owed=stock.owed + allocation.quantity))
    return _shift(stock, allocation.location, reserved=-allocation.quantity, sold=allocation.quantity)


def release(stock: Stock, allocation: Allocation) -> Stock:
    """What was held is free again."""
    if allocation.location is None:
        return replace(stock, promised=stock.promised - allocation.quantity)
    return _settle(_shift(stock, allocation.location, reserved=-allocation.quantity, on_hand=allocation.quantity))


def restock(stock: Stock, location: str | None, quantity: int) -> Stock:
    """What was sold from a location is back there and free again; of what was still to come, first what is owed is waived.

    Goods that came for a backorder came anywhere, so the other locations answer for what this one cannot. Raises
    ConflictError when fewer were sold in all: something would come back twice.
    """
    waived = min(quantity, stock.owed) if location is None else 0
    stock, missing = replace(stock, owed=stock.owed - waived), quantity - waived
    for place in sorted(stock.levels, key=lambda name: (name != location, name)):
        returned = min(missing, stock.levels[place].sold)
        stock, missing = _shift(stock, place, sold=-returned, on_hand=returned), missing - returned
    if missing:
        raise ConflictError("restock-exceeds-sold", f"fewer than {quantity} of {stock.sku} were sold")
    return _settle(stock)


def returning(allocations: Iterable[Allocation], sku: str, quantity: int, already: int) -> list[Allocation]:
    """Which of an order's goods come back when so many of a product do, after `already` have: those still to come first."""
    found: list[Allocation] = []
    for allocation in sorted((each for each in allocations if each.sku == sku), key=lambda each: each.location or ""):
        skipped = min(already, allocation.quantity)
        taken = min(quantity, allocation.quantity - skipped)
        if taken:
            found.append(replace(allocation, quantity=taken))
        already, quantity = already - skipped, quantity - taken
    return found


def set_policy(stock: Stock, policy: StockPolicy) -> Stock:
    """From now on. What is held, sold or owed already stays so."""
    return replace(stock, policy=policy)


def count(stock: Stock, location: str, quantity: int, sequence: int) -> Stock:
    """Take an absolute count as the adjustment it implies. Fewer than are reserved leaves nothing free to sell."""
    if sequence <= stock.inventory_sequence:
        return stock
    _demand_next(stock, sequence)
    level = stock.levels.get(location, Level())
    delta = max(quantity - level.reserved, 0) - level.on_hand
    return _adjust(stock, location, delta, sequence)


def adjust(stock: Stock, location: str, delta: int, sequence: int) -> Stock:
    """Goods came or went. Raises SequenceGapError when the event before this one has not been seen."""
    if sequence <= stock.inventory_sequence:
        return stock
    _demand_next(stock, sequence)
    if sequence > stock.inventory_sequence + 1:
        detail = f"{stock.sku} is at {stock.inventory_sequence} and cannot take {sequence} before what lies between"
        raise SequenceGapError("gap", detail)
    return _adjust(stock, location, max(delta, -stock.levels.get(location, Level()).on_hand), sequence)


def _demand_next(stock: Stock, sequence: int) -> None:
    """Refuse what counts so far ahead that nothing after it would be believed. Raises UnbelievableError."""
    if not is_next(sequence, stock.inventory_sequence):
        detail = f"/ce_sequence: {stock.sku} is at {stock.inventory_sequence}, and {sequence} is more than {MAX_STEP} above it"
        raise UnbelievableError("sequence-leap", detail)


def skip(stock: Stock, sequence: int) -> Stock:
    """Count an event as seen without taking it."""
    return replace(stock, inventory_sequence=max(sequence, stock.inventory_sequence))


def _adjust(stock: Stock, location: str, delta: int, sequence: int) -> Stock:
    shifted = _shift(stock, location, on_hand=delta)
    return _settle(replace(shifted, adjusted=stock.adjusted + delta, inventory_sequence=sequence))


def _settle(stock: Stock) -> Stock:
    """Goods that are on hand go to the orders they are owed to."""
    for location, quantity in _pick(stock, stock.owed):
        stock = _shift(stock, location, on_hand=-quantity, sold=quantity)
        stock = replace(stock, owed=stock.owed - quantity)
    return stock


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
