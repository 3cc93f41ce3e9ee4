"""Orders: checkouts that came true. Their numbers, their money, and how they are called off."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from libs.common.contracts.checkout import FailureReason, OrderCanceled, OrderConfirmed, OrderLine, OrderQuantity, Totals
from libs.common.decision import Aggregate
from libs.common.errors import ConflictError
from services.checkout.domain.quote import Address, QuotedDiscount
from services.checkout.domain.stock import Allocation, Returned, returning


class OrderState(StrEnum):
    """Where an order stands."""

    CONFIRMED = "confirmed"
    CANCELED = "canceled"


class PaymentState(StrEnum):
    """Where an order's money is."""

    NONE = "none"
    """Nowhere, and there will be none: the order is off, and payments holds nothing for it."""
    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    """Also of an order that cost nothing: there is nothing left to pay."""
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    DISPUTED = "disputed"


class FulfilmentState(StrEnum):
    """Where an order's goods are."""

    UNFULFILLED = "unfulfilled"
    PARTIALLY_FULFILLED = "partially_fulfilled"
    FULFILLED = "fulfilled"
    DELIVERED = "delivered"
    RETURNED = "returned"


ORDER_TRANSITIONS: dict[OrderState, frozenset[OrderState]] = {
    OrderState.CONFIRMED: frozenset({OrderState.CANCELED}),
    OrderState.CANCELED: frozenset(),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What became of the goods of one line so far: none of the counts is above the line's quantity."""

    shipped: int = 0
    returned: int = 0
    refunded: int = 0
    """For which the money went back, or is on its way."""
    refunded_minor: int | None = None
    """What these cost. None: they were refunded before that was written down."""
    shelved_by_returns: int = 0
    """Of which fulfilment says that they came back and may be sold again."""
    shelved_by_refunds: int = 0
    """Of which a refund says so."""
    restocked: int = 0
    """Of which it was done. Both speak of the same goods: whichever says more counts."""
    kept: int = 0
    """Of the restocked, those that had never been sent."""


NOTHING_YET = Progress()


@dataclass(frozen=True, kw_only=True, slots=True)
class Shipment:
    """Goods that left the house together."""

    lines: tuple[OrderQuantity, ...]
    is_delivered: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Order(Aggregate):
    """A checkout that came true."""

    OWNER: ClassVar[str | None] = "subject_id"
    id: UUID
    number: int
    state: OrderState
    reason: str | None = None
    """Why it was canceled."""
    payment_state: PaymentState
    fulfilment_state: FulfilmentState = FulfilmentState.UNFULFILLED
    subject_id: UUID
    checkout_id: UUID
    cart_id: UUID
    payment_id: UUID
    currency: str
    lines: tuple[OrderLine, ...]
    subtotal_minor: int
    discount_minor: int
    shipping_minor: int
    tax_minor: int
    tax_included: bool = False
    """The tax is part of the prices: shown, and not added."""
    total_minor: int
    discounts: tuple[QuotedDiscount, ...] = ()
    """What the discount is made of; of an order from before that was written down, nothing is told."""
    quote_hash: str | None = None
    """The digest of the quote that became this order; none before there were any."""
    captured_minor: int = 0
    refunding_minor: int = 0
    """On its way back to the buyer."""
    refunded_minor: int = 0
    disputes: dict[str, str] = field(default_factory=dict)
    """How each dispute stands, by id: `open`, or how it ended."""
    progress: dict[str, Progress] = field(default_factory=dict)
    """By line id; of a line that is not there nothing has become yet."""
    shipments: dict[str, Shipment] = field(default_factory=dict)
    returns: dict[str, tuple[OrderQuantity, ...]] = field(default_factory=dict)
    allocations: tuple[Allocation, ...] = ()
    """From where the goods were sold."""
    shipping_method: str | None = None
    shipping_address: Address | None = None
    placed_at: datetime

    def line(self, line_id: str) -> OrderLine | None:
        """The line of this id."""
        return next((line for line in self.lines if line.line_id == line_id), None)

    def progress_of(self, line_id: str) -> Progress:
        """What became of a line so far."""
        return self.progress.get(line_id, NOTHING_YET)

    def paid_minor(self, line: OrderLine) -> int:
        """What the buyer pays for a whole line: its discount taken off, and tax that is not in the price put on."""
        return line.total_minor - (line.discount_minor or 0) + (0 if self.tax_included else line.tax_minor or 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderCounter(Aggregate):
    """The last order number of a tenant. Taken last in the confirming transaction, so numbers have no gaps."""

    KEY: ClassVar[str] = "tenant_id"
    last_number: int = 0


OPEN_DISPUTE = "open"
LOST_DISPUTE = "lost"


def placed(order: Order, totals: Totals) -> OrderConfirmed:
    """There is an order."""
    return OrderConfirmed(
        order_id=order.id,
        number=order.number,
        checkout_id=order.checkout_id,
        cart_id=order.cart_id,
        payment_id=order.payment_id,
        subject_id=order.subject_id,
        currency=order.currency,
        lines=order.lines,
        totals=totals,
        placed_at=order.placed_at,
    )


def count_order(counter: OrderCounter) -> OrderCounter:
    """One more."""
    return replace(counter, last_number=counter.last_number + 1)


# --- Money --------------------------------------------------------------------------------------------------------


def capture(order: Order, captured_minor: int) -> Order:
    """The money is ours: `captured_minor` of it in all."""
    return with_money(replace(order, captured_minor=captured_minor))


def dispute(order: Order, dispute_id: UUID, standing: str) -> Order:
    """The buyer's bank contests the payment, or has decided. What was decided is not opened again."""
    known = order.disputes.get(str(dispute_id))
    if known == standing or (known is not None and standing == OPEN_DISPUTE):
        return order
    return with_money(replace(order, disputes={**order.disputes, str(dispute_id): standing}))


def let_go(order: Order) -> Order:
    """What was held for it is held no more. Money that was taken, or went back, stays told of."""
    return replace(order, payment_state=PaymentState.NONE) if order.payment_state is PaymentState.AUTHORIZED else order


def with_money(order: Order) -> Order:
    """The same order, its `payment_state` in accord with its amounts and disputes."""
    return replace(order, payment_state=_payment_state(order))


def _payment_state(order: Order) -> PaymentState:
    if any(standing in {OPEN_DISPUTE, LOST_DISPUTE} for standing in order.disputes.values()):
        return PaymentState.DISPUTED
    if order.refunded_minor:
        # Told of by different streams: a refund may be heard of before the capture that it undoes.
        whole = order.refunded_minor >= (order.captured_minor or order.total_minor)
        return PaymentState.REFUNDED if whole else PaymentState.PARTIALLY_REFUNDED
    if order.captured_minor:
        return PaymentState.CAPTURED
    return PaymentState.NONE if order.payment_state is PaymentState.NONE else PaymentState.AUTHORIZED


# --- Calling it off -----------------------------------------------------------------------------------------------


def demand_cancelable(order: Order) -> None:
    """Refuse what cannot be undone by letting go of held money. Raises ConflictError."""
    facts = {"order_id": str(order.id), "state": str(order.state), "payment_state": str(order.payment_state)}
    if order.state is OrderState.CANCELED:
        raise ConflictError("order-canceled", "the order is canceled already", **facts)
    if order.captured_minor:
        raise ConflictError("order-captured", "the order's money was taken: refund it instead", **facts)
    if order.shipments:
        raise ConflictError("order-shipped", "goods of the order have left the house", **facts)


def cancel(order: Order, reason: FailureReason) -> tuple[Order, OrderCanceled, list[Returned]]:
    """Call it off; also says which goods go back on the shelf: all that have not left the house."""
    if OrderState.CANCELED not in ORDER_TRANSITIONS[order.state]:
        raise ConflictError("order-state", f"an order that is {order.state} cannot be canceled", state=str(order.state))
    # Of one that cost nothing there is no money that payments would say anything of.
    payment_state = order.payment_state if order.total_minor else PaymentState.NONE
    canceled, goods = shelve(replace(order, state=OrderState.CANCELED, payment_state=payment_state, reason=reason))
    event = OrderCanceled(
        order_id=order.id,
        checkout_id=order.checkout_id,
        cart_id=order.cart_id,
        payment_id=order.payment_id,
        reason=reason,
        total_minor=order.total_minor,
    )
    return canceled, event, goods


def _outside(progress: Progress) -> int:
    return progress.shipped - progress.shelved_by_returns


def restock(order: Order, wanted: dict[str, int], *, were_sent: bool = False) -> tuple[Order, list[Returned]]:
    """Have so many of each line back on the shelf in all, and no good twice; says from where they had been sold.

    `were_sent`: they came back to the house. Else they never left, as far as they could still be there.
    """
    goods: list[Returned] = []
    progress = dict(order.progress)
    for line in order.lines:
        known = progress.get(line.line_id, NOTHING_YET)
        missing = min(wanted.get(line.line_id, 0), line.quantity) - known.restocked
        if missing > 0:
            already = sum(progress.get(each.line_id, NOTHING_YET).restocked for each in order.lines if each.sku == line.sku)
            kept = 0 if were_sent else min(missing, unsent(line, known))
            goods.extend(_back(returning(order.allocations, line.sku, missing, already), kept))
            progress[line.line_id] = replace(known, restocked=known.restocked + missing, kept=known.kept + kept)
    return replace(order, progress=progress), goods


def unsent(line: OrderLine, known: Progress) -> int:
    """How many of a line still lie in the house for its buyer."""
    return max(line.quantity - known.shipped - known.kept, 0)


def _back(goods: Iterable[Allocation], kept: int) -> Iterator[Returned]:
    for each in goods:
        of_these = min(kept, each.quantity)
        kept -= of_these
        yield Returned(sku=each.sku, location=each.location, quantity=each.quantity, unsent=of_these)


def shelve(order: Order, *, were_sent: bool = False) -> tuple[Order, list[Returned]]:
    """Put on the shelf what belongs there, and is not there yet.

    Fulfilment or refunds say what that is; of an order that is off, all that is not outside.
    """
    if order.state is OrderState.CANCELED:
        wanted = {line.line_id: line.quantity - _outside(order.progress_of(line.line_id)) for line in order.lines}
    else:
        wanted = {line_id: max(known.shelved_by_returns, known.shelved_by_refunds) for line_id, known in order.progress.items()}
    return restock(order, wanted, were_sent=were_sent)
