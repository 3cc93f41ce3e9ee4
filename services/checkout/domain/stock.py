"""Stock: what is free to sell, held and sold, at each location. Every move keeps the books.

What is sold beyond the shelf (`backorder`) stands beside the books and never in them: `promised` while its checkout is
being paid for, `owed` once it is an order. Goods that arrive go to the orders they are owed to first, and only then are
they on hand. A product that is `untracked` has no books: everybody who wants some gets some.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from libs.common.contracts.checkout import Availability, StockAvailabilityChanged
from libs.common.contracts.external import MAX_STEP, is_next
from libs.common.decision import Aggregate
from libs.common.errors import ConflictError, UnbelievableError

REMEMBERED = timedelta(hours=1)
"""How long it is known when goods were sent, for counts that were taken before and are heard of after."""
MOST_REMEMBERED = 100


class StockPolicy(StrEnum):
    """What happens when more is wanted than there is."""

    TRACKED = "tracked"
    """It is refused."""
    BACKORDER = "backorder"
    """It is promised, and owed once sold."""
    UNTRACKED = "untracked"
    """Nobody counts: a download, a voucher, a service."""


LOW_COUNT = 5
"""So many or fewer are few: a buyer who wants some had better not wait."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Allocation:
    """So many of a product, held at one location for one checkout."""

    sku: str
    location: str | None
    """None: they are still to come."""
    quantity: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """The last count of all that lay at a location. What was sent meanwhile is told of by others, earlier or later."""

    at: datetime
    missing: int = 0
    """By how many there were fewer than are reserved, or sold and unsent: the next that would be free are for these."""
    sent: tuple[tuple[datetime, int], ...] = ()
    """What was sent since and when, in the last hour: a count that was taken before had it in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """A product's stock at one location."""

    on_hand: int = 0
    """Free to sell."""
    reserved: int = 0
    sold: int = 0
    unsent: int = 0
    """Of those sold, how many still lie there, as far as fulfilment tells."""
    counted: Counted | None = None
    """None: never so, or free goods alone were counted since."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Returned(Allocation):
    """So many of a product, sold from one location, that are back there."""

    unsent: int = 0
    """Of these, how many had never left."""


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
    quantity = allocation.quantity
    return _shift(stock, allocation.location, reserved=-quantity, sold=quantity, unsent=quantity)


def release(stock: Stock, allocation: Allocation) -> Stock:
    """What was held is free again."""
    if allocation.location is None:
        return replace(stock, promised=stock.promised - allocation.quantity)
    return _settle(_shift(stock, allocation.location, reserved=-allocation.quantity, on_hand=allocation.quantity))


def restock(stock: Stock, location: str | None, quantity: int, unsent: int = 0) -> Stock:
    """What was sold from a location is back there and free again; of what was still to come, first what is owed is waived.

    `unsent`: so many of them were never sent. Goods that came for a backorder came anywhere, so the other locations answer
    for what this one cannot. Raises ConflictError when fewer were sold in all: something would come back twice.
    """
    waived = min(quantity, stock.owed) if location is None else 0
    stock, missing = replace(stock, owed=stock.owed - waived), quantity - waived
    for place, kept in _lying(stock, location, max(unsent - waived, 0)):
        stock = _shift(stock, place, unsent=-kept)
    for place in sorted(stock.levels, key=lambda name: (name != location, name)):
        returned = min(missing, stock.levels[place].sold)
        stock, missing = _shift(stock, place, sold=-returned, on_hand=returned), missing - returned
    if missing:
        raise ConflictError("restock-exceeds-sold", f"fewer than {quantity} of {stock.sku} were sold")
    return _settle(stock)


def send(stock: Stock, location: str | None, quantity: int, at: datetime) -> Stock:
    """What was sold from a location left it at that moment. What was sent before it came lies nowhere.

    What had left before the last count, which had it deducted all the same, is made up for.
    """
    for place, gone in _lying(stock, location, quantity):
        stock = _shift(stock, place, unsent=-gone)
        counted = stock.levels[place].counted
        if counted is None:
            continue
        if at < counted.at:
            stock = _shift(replace(stock, adjusted=stock.adjusted + gone), place, on_hand=gone)
        else:
            remembered = replace(counted, sent=_remembered([*counted.sent, (at, gone)]))
            stock = _with(stock, place, replace(stock.levels[place], counted=remembered))
    return _settle(stock)


def _remembered(sent: list[tuple[datetime, int]]) -> tuple[tuple[datetime, int], ...]:
    """What was sent in the last hour. Of very much the oldest is put together: later than it was, so that too few are free."""
    recent = [each for each in sorted(sent) if each[0] > max(sent)[0] - REMEMBERED]
    while len(recent) > MOST_REMEMBERED:
        (_, first), (at, second), *rest = recent
        recent = [(at, first + second), *rest]
    return tuple(recent)


def _lying(stock: Stock, location: str | None, quantity: int) -> list[tuple[str, int]]:
    """Where so many lie that were sold from a location: there, or where goods came to for a backorder."""
    found: list[tuple[str, int]] = []
    for place in sorted(stock.levels, key=lambda name: (name != location, name)):
        if lying := min(quantity, stock.levels[place].unsent):
            found.append((place, lying))
            quantity -= lying
    return found


def returning(allocations: Iterable[Allocation], sku: str, quantity: int, already: int) -> list[Allocation]:
    """Which of an order's goods come back when so many of a product do, after `already` have: those still to come first."""
    return _some(sorted(_of(allocations, sku), key=lambda each: each.location or ""), quantity, already)


def leaving(allocations: Iterable[Allocation], sku: str, quantity: int, already: int) -> list[Allocation]:
    """Which of an order's goods are sent when so many of a product are, after `already` were: those still to come last."""
    in_order = sorted(_of(allocations, sku), key=lambda each: (each.location is None, each.location or ""))
    return _some(in_order, quantity, already)


def _of(allocations: Iterable[Allocation], sku: str) -> Iterator[Allocation]:
    return (each for each in allocations if each.sku == sku)


def _some(allocations: Iterable[Allocation], quantity: int, already: int) -> list[Allocation]:
    """So many of these in their order, behind as many others."""
    found: list[Allocation] = []
    for allocation in allocations:
        skipped = min(already, allocation.quantity)
        taken = min(quantity, allocation.quantity - skipped)
        if taken:
            found.append(replace(allocation, quantity=taken))
        already, quantity = already - skipped, quantity - taken
    return found


def availability(stock: Stock) -> Availability:
    """How it is to be had, roughly."""
    if stock.policy is StockPolicy.UNTRACKED or stock.on_hand > LOW_COUNT:
        return "in_stock"
    if stock.on_hand:
        return "low_stock"
    return "backorder" if stock.policy is StockPolicy.BACKORDER else "out_of_stock"


def news(before: Stock | None, after: Stock) -> Sequence[StockAvailabilityChanged]:
    """What there is to tell of a change: nothing, unless it is to be had otherwise than before, or nobody was told yet."""
    told = availability(after)
    if before is not None and before.sequence and availability(before) == told:
        return ()
    return (StockAvailabilityChanged(sku=after.sku, availability=told),)


def set_policy(stock: Stock, policy: StockPolicy) -> Stock:
    """From now on. What is held, sold or owed already stays so."""
    return replace(stock, policy=policy)


def count(stock: Stock, location: str, quantity: int, sequence: int, physical_at: datetime | None = None) -> Stock:
    """Take an absolute count as the adjustment it implies. Fewer than are reserved leaves nothing free to sell.

    `physical_at`: it was taken then, of all that lay there, also of what is sold and had not been sent.
    """
    if sequence <= stock.inventory_sequence:
        return stock
    _demand_next(stock, sequence)
    level, counted = stock.levels.get(location, Level()), None
    free = quantity - level.reserved
    if physical_at is not None:
        since = [each for each in (level.counted.sent if level.counted else ()) if each[0] >= physical_at]
        free -= level.unsent + sum(gone for _, gone in since)
        counted = Counted(at=physical_at, missing=max(-free, 0), sent=tuple(since))
    return _adjust(_with(stock, location, replace(level, counted=counted)), location, max(free, 0) - level.on_hand, sequence)


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
    """Goods that are on hand go to those they were missing for when they were counted, then to the orders they are owed to."""
    for place, level in stock.levels.items():
        if level.counted is not None and (lost := min(level.counted.missing, level.on_hand)):
            counted = replace(level.counted, missing=level.counted.missing - lost)
            stock = _with(replace(stock, adjusted=stock.adjusted - lost), place, replace(level, counted=counted))
            stock = _shift(stock, place, on_hand=-lost)
    for location, quantity in _pick(stock, stock.owed):
        stock = _shift(stock, location, on_hand=-quantity, sold=quantity, unsent=quantity)
        stock = replace(stock, owed=stock.owed - quantity)
    return stock


def _shift(stock: Stock, location: str, *, on_hand: int = 0, reserved: int = 0, sold: int = 0, unsent: int = 0) -> Stock:
    """Move goods between a location's columns, and the product's totals with them."""
    level = stock.levels.get(location, Level())
    moved = replace(
        level,
        on_hand=level.on_hand + on_hand,
        reserved=level.reserved + reserved,
        sold=level.sold + sold,
        unsent=level.unsent + unsent,
    )
    stock = replace(stock, on_hand=stock.on_hand + on_hand, reserved=stock.reserved + reserved, sold=stock.sold + sold)
    return _with(stock, location, moved)


def _with(stock: Stock, location: str, level: Level) -> Stock:
    return replace(stock, levels={**stock.levels, location: level})
