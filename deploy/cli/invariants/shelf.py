"""Whether stock is conserved: what is sold follows from orders, what is held from checkouts, and what there is from inventory."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from deploy.cli.invariants.facts import AfterOrder, Books, Facts, Inventory, Level, Order
from deploy.cli.invariants.violation import Violation
from libs.common.contracts.external import is_next

NOTHING_SINCE = AfterOrder()


@dataclass(frozen=True, slots=True)
class Range:
    """What a number may be. More than one value, where the published facts leave something open."""

    least: int
    most: int

    def __contains__(self, number: int) -> bool:
        return self.least <= number <= self.most

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"


NOTHING = Range(0, 0)


@dataclass(frozen=True, slots=True)
class Span:
    """Numbers by SKU, each at least and at most so many."""

    least: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)

    def of(self, sku: str) -> Range:
        """Of one product."""
        return Range(self.least[sku], self.most[sku])


class Shelf:
    """What orders and checkouts say of each product's stock, summed up purchase by purchase."""

    def __init__(self) -> None:
        """Begin with nothing sold and nothing held."""
        self._sold = Span()
        self._held = Span()
        self._wanted_at: dict[str, datetime] = {}
        """When somebody first asked for a product."""

    def add(self, facts: Facts) -> None:
        """Sum up what some purchases have sold and not put back, and what they hold."""
        published = facts.published
        for order_id, order in published.orders.items():
            after = published.after.get(order_id, NOTHING_SINCE)
            for line_id, (sku, quantity) in order.goods.items():
                back = _put_back(order, after, line_id) if after is not NOTHING_SINCE else NOTHING
                self._sold.least[sku] += quantity - back.most
                self._sold.most[sku] += quantity - back.least
        ordered = {order.checkout_id for order in published.orders.values()}
        for checkout_id, checkout in published.checkouts.items():
            if checkout.ended_at is None and checkout_id not in ordered:
                # Before it asks for money it may hold the goods, or not yet.
                self._held.most.update(checkout.goods)
                if checkout.asked_at is not None:
                    self._held.least.update(checkout.goods)
            if checkout.requested_at:
                for sku in checkout.goods:
                    self._wanted_at[sku] = min(self._wanted_at.get(sku, checkout.requested_at), checkout.requested_at)

    def violations(self, books: Books) -> Iterator[Violation]:
        """One for each product whose published stock is not what the other facts make it. Products nobody counts have none."""
        if not books.is_whole:
            return
        for sku, level in books.stock.items():
            if level.is_tracked and (wrong := list(self._wrong(books, sku, level))):
                yield Violation(tenant=books.tenant, invariant="stock-leak", subject=sku, detail="; ".join(wrong))

    def _wrong(self, books: Books, sku: str, level: Level) -> Iterator[str]:
        sold, held = self._sold.of(sku), self._held.of(sku)
        # What was let go beyond the shelf is sold or held too, and stock does not publish which.
        if level.sold > sold.most or level.sold + level.backordered < sold.least:
            yield f"{level.sold} sold, where orders say {sold}"
        if level.reserved > held.most or level.reserved + level.backordered < held.least:
            yield f"{level.reserved} reserved, where checkouts say {held}"
        there_should_be = _supplied(books.noted.inventory(sku), self._wanted_at.get(sku, books.at))
        there_are = level.on_hand + level.reserved + level.sold
        if there_should_be is not None and there_are != there_should_be:
            yield f"{there_are} on hand, reserved and sold, where inventory says {there_should_be}"


def _put_back(order: Order, after: AfterOrder, line_id: str) -> Range:
    """How many of a line are on the shelf again: for returns, for refunds, or because it was canceled; no good twice."""
    _, quantity = order.goods[line_id]
    returned = sum(goods.get(line_id, 0) for goods in after.returns.values())
    shelved = {refund_id: goods.get(line_id, 0) for refund_id, (goods, restock) in after.refunds.items() if restock}
    certain = sum(quantity for refund_id, quantity in shelved.items() if refund_id not in after.failed_refunds)
    possible = sum(goods.get(line_id, 0) for goods, restock in after.refunds.values() if restock is not False)
    least, most = max(returned, certain, *shelved.values()), max(returned, possible)
    if after.canceled_at is not None:
        unshipped = quantity - sum(goods.get(line_id, 0) for goods in after.shipments.values())
        least, most = max(least, unshipped), most + unshipped
    return Range(min(least, quantity), min(most, quantity))


def _supplied(said: Iterable[tuple[int, Inventory]], wanted_at: datetime) -> int | None:
    """How many ever came, by inventory's word. None: a count while some were held or sold leaves that open."""
    levels, last = Counter[str](), 0
    for sequence, fact in said:
        if not is_next(sequence, last):
            break  # a leap is refused, and so is everything above it
        last = sequence
        if fact.is_count:
            if fact.at >= wanted_at:
                return None
            levels[fact.location] = fact.quantity
        else:
            if fact.quantity < 0 and fact.at >= wanted_at:
                return None  # no more can go than is there, and what was there by then is not published
            levels[fact.location] = max(levels[fact.location] + fact.quantity, 0)
    return levels.total()
