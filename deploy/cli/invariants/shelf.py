"""Whether stock is conserved: what is sold follows from orders, what is held from checkouts, and what there is from inventory."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from deploy.cli.invariants.facts import AfterOrder, Facts, Level, Order
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


def stock_violations(facts: Facts) -> Iterator[Violation]:
    """One for each product whose published stock is not what the other facts make it. Products nobody counts have none."""
    if not facts.is_whole:
        return
    sold, held = _sold(facts), _held(facts)
    for sku, level in facts.stock.items():
        if level.is_tracked:
            wrong = list(_wrong(facts, sku, level, sold.get(sku, Range(0, 0)), held.get(sku, Range(0, 0))))
            if wrong:
                yield Violation(tenant=facts.tenant, invariant="stock-leak", subject=sku, detail="; ".join(wrong))


def _wrong(facts: Facts, sku: str, level: Level, sold: Range, held: Range) -> Iterator[str]:
    # What was let go beyond the shelf is sold or held too, and stock does not publish which.
    if level.sold > sold.most or level.sold + level.backordered < sold.least:
        yield f"{level.sold} sold, where orders say {sold}"
    if level.reserved > held.most or level.reserved + level.backordered < held.least:
        yield f"{level.reserved} reserved, where checkouts say {held}"
    there_should_be, there_are = _supplied(facts, sku), level.on_hand + level.reserved + level.sold
    if there_should_be is not None and there_are != there_should_be:
        yield f"{there_are} on hand, reserved and sold, where inventory says {there_should_be}"


def _sold(facts: Facts) -> dict[str, Range]:
    """By SKU: what all orders together have sold and not put back."""
    least, most = Counter[str](), Counter[str]()
    for order_id, order in facts.published.orders.items():
        after = facts.published.after.get(order_id, NOTHING_SINCE)
        for line_id, (sku, quantity) in order.goods.items():
            back = _put_back(order, after, line_id)
            least[sku] += quantity - back.most
            most[sku] += quantity - back.least
    return {sku: Range(least[sku], most[sku]) for sku in most}


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


def _held(facts: Facts) -> dict[str, Range]:
    """By SKU: what checkouts hold that are under way. Before they ask for money they may hold it, or not yet."""
    least, most = Counter[str](), Counter[str]()
    ordered = {order.checkout_id for order in facts.published.orders.values()}
    for checkout_id, checkout in facts.published.checkouts.items():
        if checkout.ended_at is None and checkout_id not in ordered:
            most.update(checkout.goods)
            if checkout.asked_at is not None:
                least.update(checkout.goods)
    return {sku: Range(least[sku], most[sku]) for sku in most}


def _supplied(facts: Facts, sku: str) -> int | None:
    """How many ever came, by inventory's word. None: a count while some were held or sold leaves that open."""
    wanted = [each.requested_at for each in facts.published.checkouts.values() if sku in each.goods and each.requested_at]
    sold_since = min(wanted, default=facts.at)
    levels, last = Counter[str](), 0
    for sequence, fact in sorted(facts.published.inventory.get(sku, {}).items()):
        if not is_next(sequence, last):
            break  # a leap is refused, and so is everything above it
        last = sequence
        if fact.is_count:
            if fact.at >= sold_since:
                return None
            levels[fact.location] = fact.quantity
        else:
            if fact.quantity < 0 and fact.at >= sold_since:
                return None  # no more can go than is there, and what was there by then is not published
            levels[fact.location] = max(levels[fact.location] + fact.quantity, 0)
    return levels.total()
