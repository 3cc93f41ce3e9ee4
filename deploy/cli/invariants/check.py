"""What must always be so, decided from facts and a clock alone. Pure: no broker, no provider, no service.

Each rule speaks of one thing that is wrong and leaves what another rule says to that rule, so that a fault has one name.
What is on its way is not wrong until it is beyond its limit.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from deploy.cli.invariants.facts import AfterOrder, Books, Charge, Facts, Order
from deploy.cli.invariants.shelf import Shelf
from deploy.cli.invariants.violation import Violation

FEES = frozenset({"provider_fees", "dispute_fees"})
PROVIDER_BALANCE = "provider_balance"
NOTHING_SINCE = AfterOrder()
SUMS = ("captured_minor", "refunded_minor", "orders_minor", "orders")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How long what is under way may take, in seconds."""

    checkout: int = 1_200
    """To its end: a checkout's own time, and some for payments to let go."""
    capture: int = 300
    """From the order, or its first shipment, to its money; and from the money to everybody's knowing of it."""
    unknown: int = 900
    """Until it is known what the provider did."""
    refund: int = 432_000
    """Until the buyer has it: banks take days."""
    orphan: int = 1_200
    """Until money without an order has gone back."""


@dataclass(frozen=True, slots=True)
class Judgment:
    """What one look at a tenant's business came to."""

    books: Books
    violations: Sequence[Violation]
    totals: Mapping[str, Mapping[str, int]]
    """By currency: what was captured and given back by the provider's list, and what the orders that stand come to."""
    checkouts: int


def judge(books: Books, limits: Limits) -> Judgment:
    """Everything that is not as it must be, with the sums of what there is."""
    found: set[Violation] = set()
    shelf, sums, checkouts = Shelf(), defaultdict[str, Counter[str]](Counter), 0
    for facts in books.pages():
        found.update(_of_purchases(facts, limits))
        shelf.add(facts)
        _sum_up(facts, sums)
        checkouts += len(facts.published.checkouts)
    found.update([*_numbers(books), *_ledger(books), *shelf.violations(books)])
    totals = {currency: {name: sums[currency][name] for name in SUMS} for currency in sorted(sums)}
    return Judgment(books, sorted(found, key=lambda each: (each.invariant, each.subject)), totals, checkouts)


def _of_purchases(facts: Facts, limits: Limits) -> Iterator[Violation]:
    yield from _second_orders(facts)
    yield from _unasked(facts)
    yield from _stuck(facts, limits)
    if facts.charges is not None:
        yield from _money(facts, facts.charges, limits)
        yield from _told(facts, facts.charges, limits)


def _sum_up(facts: Facts, sums: dict[str, Counter[str]]) -> None:
    for charge in facts.charges or ():
        its = sums[charge.currency]
        its["captured_minor"] += charge.captured_minor
        its["refunded_minor"] += charge.refunded_minor
    for order_id, order in facts.published.orders.items():
        if _after(facts, order_id).canceled_at is None:
            its = sums[order.currency]
            its["orders_minor"] += order.total_minor
            its["orders"] += 1


def _after(facts: Facts, order_id: UUID) -> AfterOrder:
    return facts.published.after.get(order_id, NOTHING_SINCE)


def _age(facts: Facts, since: datetime) -> float:
    return (facts.at - since).total_seconds()


def _violation(facts: Facts | Books, invariant: str, subject: object, detail: str) -> Violation:
    return Violation(tenant=facts.tenant, invariant=invariant, subject=str(subject), detail=detail)


# --- Orders and their numbers -------------------------------------------------------------------------------------


def _numbers(books: Books) -> Iterator[Violation]:
    """Numbers without a gap, and each of one order."""
    expected = 1 if books.is_whole else None
    for number, count in books.noted.numbers():
        if count > 1:
            yield _violation(books, "order-number-twice", number, f"{count} orders have this number")
        if expected is not None and number > expected:
            missing = str(expected) if expected == number - 1 else f"{expected} to {number - 1}"
            yield _violation(books, "order-number-gap", missing, f"there is an order {number} and none of this number")
        expected = number + 1


def _second_orders(facts: Facts) -> Iterator[Violation]:
    """One order a checkout."""
    for checkout_id, count in Counter(order.checkout_id for order in facts.published.orders.values()).items():
        if count > 1:
            yield _violation(facts, "second-order", checkout_id, f"{count} orders of one checkout")


def _unasked(facts: Facts) -> Iterator[Violation]:
    """An order that stands keeps its money, unless somebody asked for it back."""
    standing = {
        order.payment_id: (order_id, order)
        for order_id, order in facts.published.orders.items()
        if _after(facts, order_id).canceled_at is None
    }
    for refund_id, refund in facts.published.refunds.items():
        if refund.is_unasked and refund.payment_id in standing:
            order_id, order = standing[refund.payment_id]
            detail = f"{refund.amount_minor} of {order.total_minor} {order.currency} went back as no order's: {refund_id}"
            yield _violation(facts, "refund-unasked", order_id, detail)


# --- Money --------------------------------------------------------------------------------------------------------


def _money(facts: Facts, charges: Iterable[Charge], limits: Limits) -> Iterator[Violation]:
    """At most one charge a checkout, an order or a refund for each capture, and one capture for each order."""
    of_checkout: dict[UUID | None, list[Charge]] = defaultdict(list)
    for charge in charges:
        of_checkout[charge.checkout_id].append(charge)
    # Of two orders of one checkout the lowest number, whichever of them was read first.
    by_number = sorted(facts.published.orders.items(), key=lambda each: (each[1].number, each[0]), reverse=True)
    orders = {order.checkout_id: (order_id, order) for order_id, order in by_number}
    for checkout_id in {*of_checkout, *orders}:
        found = of_checkout[checkout_id]
        holding = [charge for charge in found if charge.holds_money]
        if len(holding) > 1 and checkout_id is not None:
            ids = ", ".join(sorted(charge.id for charge in holding))
            yield _violation(facts, "second-charge", checkout_id, f"the provider has {len(holding)} charges for it: {ids}")
            continue
        order = orders.get(checkout_id) if checkout_id else None
        if order is None or _after(facts, order[0]).canceled_at is not None:
            yield from _unwanted(facts, holding, order, limits)
        else:
            yield from _wanted(facts, found, *order, limits)


def _unwanted(
    facts: Facts, holding: Iterable[Charge], canceled: tuple[UUID, Order] | None, limits: Limits
) -> Iterator[Violation]:
    """Money for which no order stands: it must be on its way back."""
    for charge in holding:
        checkout = facts.published.checkouts.get(charge.checkout_id) if charge.checkout_id else None
        if checkout is None and not facts.is_whole:
            continue  # it began before all that the topics still know
        canceled_at = _after(facts, canceled[0]).canceled_at if canceled else None
        since = canceled_at or (checkout.ended_at if checkout else None) or charge.created_at
        if _age(facts, since) <= limits.orphan:
            continue
        if charge.captured_minor:
            kept = charge.captured_minor - charge.refunded_minor - charge.returning_minor
            detail = f"{kept} {charge.currency} of {charge.captured_minor} captured, with neither an order nor a refund"
            yield _violation(facts, "capture-without-order", charge.id, detail)
        elif checkout is None or checkout.ended_at is not None or canceled is not None:
            yield _violation(facts, "money-held", charge.id, "the buyer's money is held, and nobody waits for it")


def _wanted(facts: Facts, charges: Iterable[Charge], order_id: UUID, order: Order, limits: Limits) -> Iterator[Violation]:
    """The one capture of an order that stands."""
    captured = [charge for charge in charges if charge.captured_minor and charge.payment_id == order.payment_id]
    if captured:
        got = captured[0].captured_minor
        if got != order.total_minor and _is_settled(facts, order_id, order, limits):
            detail = f"{got} captured of an order of {order.total_minor} {order.currency}"
            yield _violation(facts, "capture-differs", order_id, detail)
        return
    payment = facts.published.payments.get(order.payment_id)
    if payment is not None and payment.captured_minor:
        detail = f"payments published a capture of {payment.captured_minor}, and the provider has none"
        yield _violation(facts, "capture-lost", order_id, detail)
    elif order.total_minor and _is_settled(facts, order_id, order, limits):
        yield _violation(
            facts, "order-without-capture", order_id, f"number {order.number} of {order.placed_at:%F %T} is not paid"
        )


def _is_settled(facts: Facts, order_id: UUID, order: Order, limits: Limits) -> bool:
    """Whether an order's money should be there by now: from its confirmation, or from its first shipment if that was agreed."""
    checkout = facts.published.checkouts.get(order.checkout_id)
    on_shipment = checkout is not None and checkout.on_shipment
    since = _after(facts, order_id).first_shipped_at if on_shipment else order.placed_at
    return since is not None and _age(facts, since) > limits.capture


def _told(facts: Facts, charges: Iterable[Charge], limits: Limits) -> Iterator[Violation]:
    """What the provider did has been published: captures, and what went back."""
    given: Counter[UUID] = Counter()
    moving: set[UUID] = set()
    for refund in facts.published.refunds.values():
        given[refund.payment_id] += refund.amount_minor if refund.is_given else 0
        if not refund.is_over:
            moving.add(refund.payment_id)
    for charge in charges:
        payment = facts.published.payments.get(charge.payment_id) if charge.payment_id else None
        if payment is None or charge.payment_id is None:
            continue
        if charge.captured_minor > payment.captured_minor and _age(facts, charge.created_at) > limits.capture:
            detail = f"the provider captured {charge.captured_minor}, payments published {payment.captured_minor}"
            yield _violation(facts, "capture-untold", charge.id, detail)
        if charge.refunded_minor != given[charge.payment_id] and charge.payment_id not in moving and facts.is_whole:
            detail = f"the provider gave {charge.refunded_minor} back, payments published {given[charge.payment_id]}"
            yield _violation(facts, "refund-differs", charge.id, detail)


# --- What takes too long ------------------------------------------------------------------------------------------


def _stuck(facts: Facts, limits: Limits) -> Iterator[Violation]:
    """Nothing waits beyond its limit."""
    published = facts.published
    ordered = {order.checkout_id for order in published.orders.values()}
    # Of those whose money was taken the order is missing, not the end: money's rules say so.
    paid = {payment.checkout_id for payment in published.payments.values() if payment.captured_minor}
    for checkout_id, checkout in published.checkouts.items():
        if checkout.requested_at is None or checkout.ended_at or checkout_id in ordered or checkout_id in paid:
            continue
        if (age := _age(facts, checkout.requested_at)) > limits.checkout:
            yield _violation(facts, "checkout-stuck", checkout_id, f"begun {age:.0f} s ago, and not over")
    for payment_id, payment in published.payments.items():
        since = payment.unknown_at
        if since is None or (payment.heard_at is not None and payment.heard_at >= since):
            continue
        if (age := _age(facts, since)) > limits.unknown:
            yield _violation(facts, "payment-unknown", payment_id, f"nobody has known for {age:.0f} s what the provider did")
    for refund_id, refund in published.refunds.items():
        if not refund.is_over and (age := _age(facts, refund.asked_at)) > limits.refund:
            yield _violation(facts, "refund-stuck", refund_id, f"asked for {age:.0f} s ago, and neither given nor failed")


# --- The ledger ---------------------------------------------------------------------------------------------------


def _ledger(books: Books) -> Iterator[Violation]:
    """As much debited as credited; and the provider's balance, before its fees, is what the provider itself has booked."""
    debited, credited, ours = Counter[str](), Counter[str](), Counter[str]()
    for account in books.accounts:
        debited[account.currency] += account.debited_minor
        credited[account.currency] += account.credited_minor
        if account.code == PROVIDER_BALANCE or account.code in FEES:
            ours[account.currency] += account.debited_minor - account.credited_minor
    for currency in sorted(debited):
        if debited[currency] != credited[currency]:
            detail = f"{debited[currency]} debited, {credited[currency]} credited"
            yield _violation(books, "ledger-unbalanced", currency, detail)
        elif books.is_listed and ours[currency] != _net(books.provider_net_minor, currency):
            detail = f"the ledger has {ours[currency]} at the provider, which has {_net(books.provider_net_minor, currency)}"
            yield _violation(books, "ledger-differs", currency, detail)
    if books.is_listed:
        for currency, net in books.provider_net_minor.items():
            if net and currency not in debited:
                yield _violation(books, "ledger-differs", currency, f"the ledger has nothing, the provider {net}")


def _net(by_currency: Mapping[str, int], currency: str) -> int:
    return by_currency.get(currency, 0)
