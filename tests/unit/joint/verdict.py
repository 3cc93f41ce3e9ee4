"""What must be true of a house at rest. Each finding is told in words; none is what is promised."""

from collections import Counter
from collections.abc import Iterator
from uuid import UUID

from services.checkout.domain.order import Order, OrderState
from services.checkout.domain.refund import Refund as OrderRefund
from services.checkout.domain.refund import RefundState as OrderRefundState
from services.checkout.domain.saga import Checkout, CheckoutState
from services.checkout.domain.stock import Stock
from services.payments.domain.money.ledger import Account, Entry, EntryKind
from services.payments.domain.money.refund import Refund, RefundState
from services.payments.domain.payment.payment import OrderStanding, Payment
from services.payments.domain.provider.outcome import RefundStatus
from tests.unit.joint.house import SHELF
from tests.unit.joint.provider import Intent
from tests.unit.joint.walk import Walk

ENDED = frozenset({RefundState.SUCCEEDED, RefundState.FAILED, RefundState.CANCELED})


def findings(walk: Walk) -> list[str]:
    """Every promise that does not hold."""
    found = [problem for checkout in walk.house.checkout.all(Checkout) for problem in _of_checkout(walk, checkout)]
    return [*found, *_of_stock(walk), *_of_refunds(walk), *_of_books(walk)]


def _intents(walk: Walk, checkout: Checkout) -> list[Intent]:
    """More than one only where the first was made and never told of; money may be on one alone."""
    return [each for each in walk.house.provider.intents.values() if each.payment_id == str(checkout.payment_id)]


def _of_checkout(walk: Walk, checkout: Checkout) -> Iterator[str]:
    order, payment, intents = walk.house.order_of(checkout.id), walk.house.payment_of(checkout), _intents(walk, checkout)
    if not checkout.is_final:
        yield f"a checkout never ends: {checkout.state}"
    if (order is not None) != (checkout.state is CheckoutState.CONFIRMED):
        yield "an order without its checkout, or the reverse"
    if checkout.id in walk.risen and (intents or payment is not None):
        yield "money was asked for at a price that rose unknown to its buyer"
    yield from _of_charges(checkout, intents)
    if payment is None:
        if intents:
            yield "the provider has a payment that payments does not have"
        return
    yield from _of_payment(walk, payment, intents)
    if order is not None and order.state is OrderState.CONFIRMED:
        yield from _of_order(walk, order, payment, intents)
    else:
        yield from _of_nobodys_money(walk, payment, intents)


def _of_charges(checkout: Checkout, intents: list[Intent]) -> Iterator[str]:
    tried = [each for each in intents if each.attempt_count]
    if len(tried) > 1:
        yield "two of the provider's payments were put to the issuer for one of ours"
    if checkout.confirmation == "server" and sum(each.attempt_count for each in intents) > 1:
        yield "a card was put to its issuer twice"
    total_minor = checkout.total_minor or 0
    if any(each.received_minor + each.held_minor > total_minor for each in intents):
        yield "more is taken or held than the checkout costs"


def _of_payment(walk: Walk, payment: Payment, intents: list[Intent]) -> Iterator[str]:
    received = sum(each.received_minor for each in intents)
    back = sum(walk.house.provider.given_minor(each, RefundStatus.SUCCEEDED) for each in intents)
    if payment.captured_minor != received:
        yield f"payments says that {payment.captured_minor} was taken, the provider {received}"
    if payment.refunded_minor != back:
        yield f"payments says that {payment.refunded_minor} went back, the provider {back}"
    if payment.refunding_minor:
        yield f"{payment.refunding_minor} is on its way back for ever"
    if payment.operation_id is not None:
        yield f"a payment waits for ever: {payment.state}"


def _of_order(walk: Walk, order: Order, payment: Payment, intents: list[Intent]) -> Iterator[str]:
    """An order that stands has its money, and both say the same of it."""
    received, held = sum(each.received_minor for each in intents), sum(each.held_minor for each in intents)
    back = sum(walk.house.provider.given_minor(each, RefundStatus.SUCCEEDED) for each in intents)
    settings, is_bereft = walk.house.settings, payment.id in walk.house.bereft
    if payment.order_standing is not OrderStanding.CONFIRMED and not is_bereft:
        yield f"an order stands, and payments says that it is {payment.order_standing}"
    is_due = not settings.on_shipment or bool(order.shipments)
    if settings.by_hand or is_bereft:
        has_its_money = received > 0 or held > 0
    else:
        has_its_money = received == order.total_minor or (not is_due and held == order.total_minor)
    if not has_its_money:
        yield f"an order of {order.total_minor} stands with {received} taken and {held} held: {payment.state}"
    if order.captured_minor != received and not is_bereft:
        yield f"the order says that {order.captured_minor} was taken, the provider {received}"
    if (order.refunded_minor, order.refunding_minor) != (back, 0) and order.id not in walk.house.overtaken:
        yield f"the order says that {order.refunded_minor} (and {order.refunding_minor}) went back, the provider {back}"
    mine = [each.status for each in walk.house.provider.disputes.values() if each.intent_id == payment.intent_id]
    if sorted(order.disputes.values()) != sorted(mine):
        yield f"the order says {dict(order.disputes)} of its disputes"


def _of_nobodys_money(walk: Walk, payment: Payment, intents: list[Intent]) -> Iterator[str]:
    """Money without an order is not held, and goes back: by a refund, or by the buyer's bank."""
    provider = walk.house.provider
    if held := sum(each.held_minor for each in intents):
        yield f"{held} is held without an order: {payment.state}"
    kept = sum(
        each.received_minor - provider.given_minor(each, RefundStatus.SUCCEEDED) for each in intents if not each.is_contested
    )
    if kept:
        yield f"{kept} is kept without an order: {payment.state}, {payment.order_standing}"


def _of_stock(walk: Walk) -> Iterator[str]:
    stock = walk.house.checkout.get(Stock, "tea")
    if stock.adjusted != SHELF or stock.adjusted != stock.on_hand + stock.reserved + stock.sold:
        yield f"goods from nowhere: {stock.adjusted} = {stock.on_hand} + {stock.reserved} + {stock.sold}"
    if stock.reserved:
        yield f"{stock.reserved} stay reserved for nobody"
    orders = walk.house.checkout.all(Order)
    sold = sum(each.quantity for order in orders for each in order.allocations)
    sold -= sum(each.restocked for order in orders for each in order.progress.values())
    if stock.sold != sold:
        yield f"{stock.sold} are sold, by the orders {sold}"
    if any(each.state is OrderState.CANCELED and _inside(each) for each in orders):
        yield "of an order that is off, goods inside are not on the shelf, or goods outside are"


def _inside(order: Order) -> int:
    """What never left, or came back to be sold again, and is not on the shelf."""
    gone = sum(each.shipped - each.shelved_by_returns for each in order.progress.values())
    restocked = sum(each.restocked for each in order.progress.values())
    return sum(line.quantity for line in order.lines) - gone - restocked


def _of_refunds(walk: Walk) -> Iterator[str]:
    """What was accepted was made, or told failed; nothing went back twice."""
    made: Counter[str] = Counter()
    for seen in walk.house.provider.refunds.values():
        if seen.status is RefundStatus.SUCCEEDED and "refund_id" in seen.metadata:
            made[seen.metadata["refund_id"]] += seen.amount_minor
    for refund in walk.house.payments.all(Refund):
        if refund.state not in ENDED:
            yield f"a refund never ends: {refund.state}"
        due = refund.amount_minor if refund.state is RefundState.SUCCEEDED else 0
        if str(refund.id) in made and made[str(refund.id)] != due:
            yield f"a refund of {refund.amount_minor} is {refund.state}, and the provider gave {made[str(refund.id)]}"
    for wished in walk.house.checkout.all(OrderRefund):
        yield from _of_wish(walk, wished)


def _of_wish(walk: Walk, wished: OrderRefund) -> Iterator[str]:
    known = {each.id: each.state for each in walk.house.payments.all(Refund)}
    is_made = known.get(wished.id) is RefundState.SUCCEEDED
    expected = OrderRefundState.SUCCEEDED if is_made else OrderRefundState.FAILED
    if wished.state is not expected:
        yield f"checkout says that a refund is {wished.state}, payments that it is {known.get(wished.id)}"


def _of_books(walk: Walk) -> Iterator[str]:
    """In each currency the books agree with the provider's balance, payment by payment."""
    ours: Counter[tuple[UUID, str]] = Counter()
    kinds: Counter[tuple[UUID, EntryKind]] = Counter()
    for entry in walk.house.payments.all(Entry):
        kinds[entry.payment_id, entry.kind] += entry.amount_minor
        ours[entry.payment_id, entry.currency] += entry.amount_minor * (entry.debit is Account.PROVIDER_BALANCE)
        ours[entry.payment_id, entry.currency] -= entry.amount_minor * (entry.credit is Account.PROVIDER_BALANCE)
    for payment in walk.house.payments.all(Payment):
        back = kinds[payment.id, EntryKind.REFUND] - kinds[payment.id, EntryKind.REFUND_RETURN]
        if (kinds[payment.id, EntryKind.CAPTURE], back) != (payment.captured_minor, payment.refunded_minor):
            yield "the ledger has other captures or refunds than the payment"
        intent = walk.house.intent_of(payment)
        if intent is None or intent.capture_count > 1:
            continue  # of several captures an answer tells the fee and the exchange of the newest: reconciliation has the rest
        for currency in ("GBP", "EUR"):
            theirs = walk.house.provider.balance[str(payment.id), currency]
            if ours[payment.id, currency] != theirs:
                yield f"the books have {ours[payment.id, currency]} {currency}, the provider {theirs}"
