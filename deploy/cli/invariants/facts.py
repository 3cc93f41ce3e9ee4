"""What is known of one tenant's business, from published facts alone: topics, the provider's lists, and two open books.

Events are taken in whatever order topics give them, and any number of times: each sets what it says, and counts nothing up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from libs.common.contracts import Event
from libs.common.contracts.cart import CartFrozen
from libs.common.contracts.checkout import (
    CheckoutCanceled,
    CheckoutExpired,
    CheckoutFailed,
    CheckoutRequested,
    OrderCanceled,
    OrderConfirmed,
    OrderRefunded,
    OrderRefundFailed,
    PaymentRequested,
    RefundRequested,
)
from libs.common.contracts.fulfilment import ReturnReceived, ShipmentDispatched
from libs.common.contracts.inventory import StockAdjusted, StockCounted
from libs.common.contracts.payments import (
    PaymentAuthorized,
    PaymentCaptured,
    PaymentDeclined,
    PaymentExpired,
    PaymentUnknown,
    PaymentVoided,
    RefundFailed,
    RefundPending,
    RefundSucceeded,
)

NO_ORDER = "no-order"
"""Why payments gives money back that nobody asked for."""


@dataclass(slots=True)
class Checkout:
    """One attempt to buy a cart."""

    requested_at: datetime | None = None
    goods: dict[str, int] = field(default_factory=dict)
    """So many of each SKU, once the cart has frozen."""
    asked_at: datetime | None = None
    """When payments was asked for the money."""
    payment_id: UUID | None = None
    on_shipment: bool = False
    ended_at: datetime | None = None
    """Without an order."""


@dataclass(slots=True)
class Order:
    """One order."""

    number: int
    checkout_id: UUID
    payment_id: UUID
    total_minor: int
    currency: str
    placed_at: datetime
    goods: dict[str, tuple[str, int]]
    """SKU and quantity by line."""


@dataclass(slots=True)
class AfterOrder:
    """What became of an order. It may be heard of before the order is."""

    canceled_at: datetime | None = None
    shipments: dict[str, dict[str, int]] = field(default_factory=dict)
    """So many of each line, by shipment."""
    first_shipped_at: datetime | None = None
    returns: dict[str, dict[str, int]] = field(default_factory=dict)
    """So many of each line that may be sold again, by return."""
    refunds: dict[UUID, tuple[dict[str, int], bool | None]] = field(default_factory=dict)
    """So many of each line, and whether they went back on the shelf; None: not told."""
    failed_refunds: set[UUID] = field(default_factory=set)
    """Those whose money came back after all. Goods on the shelf for one stay there, and the next puts none beside them."""


@dataclass(slots=True)
class Payment:
    """What payments says of one payment."""

    checkout_id: UUID
    unknown_at: datetime | None = None
    heard_at: datetime | None = None
    """When something certain was last said."""
    captured_at: datetime | None = None
    captured_minor: int = 0


@dataclass(slots=True)
class Refund:
    """What was said of one refund."""

    asked_at: datetime
    payment_id: UUID
    amount_minor: int
    succeeded_at: datetime | None = None
    failed_at: datetime | None = None
    is_unasked: bool = False
    """Given back of itself, as the money of no order."""

    @property
    def is_over(self) -> bool:
        """Whether it is known what came of it."""
        return self.succeeded_at is not None or self.failed_at is not None

    @property
    def is_given(self) -> bool:
        """Whether the buyer has it: a refund may fail after it had succeeded."""
        return self.succeeded_at is not None and (self.failed_at is None or self.failed_at < self.succeeded_at)


@dataclass(frozen=True, slots=True)
class Inventory:
    """One fact about a product's stock."""

    at: datetime
    location: str
    quantity: int
    is_count: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Charge:
    """One payment on the provider's own list."""

    id: str
    checkout_id: UUID | None
    payment_id: UUID | None
    status: str
    captured_minor: int
    refunded_minor: int
    """What the buyer has back."""
    returning_minor: int = 0
    """What is on its way to the buyer."""
    currency: str
    created_at: datetime

    @property
    def holds_money(self) -> bool:
        """Whether any of the buyer's money is held, or was taken and not given back."""
        return (
            self.status in {"requires_capture", "processing"} or self.captured_minor > self.refunded_minor + self.returning_minor
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """A product's stock as checkout publishes it."""

    on_hand: int
    reserved: int
    sold: int
    backordered: int
    is_tracked: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """One account of the ledger as payments publishes it."""

    code: str
    currency: str
    debited_minor: int
    credited_minor: int


@dataclass(slots=True)
class Published:
    """What the topics say of one tenant."""

    checkouts: dict[UUID, Checkout] = field(default_factory=dict)
    orders: dict[UUID, Order] = field(default_factory=dict)
    after: dict[UUID, AfterOrder] = field(default_factory=dict)
    payments: dict[UUID, Payment] = field(default_factory=dict)
    refunds: dict[UUID, Refund] = field(default_factory=dict)
    inventory: dict[str, dict[int, Inventory]] = field(default_factory=dict)
    """By SKU and sequence."""

    def take(self, event: Event, at: datetime, sequence: int) -> None:
        """Note what an event says."""
        note = NOTES.get(type(event))
        if note is not None:
            note(self, event, at, sequence)

    def checkout(self, checkout_id: UUID) -> Checkout:
        """What is known of a checkout."""
        return self.checkouts.setdefault(checkout_id, Checkout())

    def after_order(self, order_id: UUID) -> AfterOrder:
        """What became of an order."""
        return self.after.setdefault(order_id, AfterOrder())


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Everything that is known of a tenant at one moment."""

    tenant: str
    at: datetime
    published: Published
    charges: Sequence[Charge] | None
    """None: the tenant's account at the provider is its own, and only it can list what is there."""
    provider_net_minor: Mapping[str, int]
    """What the provider owes this tenant before its fees, by currency."""
    stock: Mapping[str, Level]
    accounts: Sequence[Account]
    is_whole: bool = True
    """Whether the topics reach back to the beginning. If not, only what began within them is judged."""


# --- What each event says -----------------------------------------------------------------------------------------


def _requested(found: Published, event: CheckoutRequested, at: datetime, _: int) -> None:
    found.checkout(event.checkout_id).requested_at = at


def _frozen(found: Published, event: CartFrozen, _at: datetime, _: int) -> None:
    goods: dict[str, int] = {}
    for line in event.lines:
        goods[line.sku] = goods.get(line.sku, 0) + line.quantity
    found.checkout(event.checkout_id).goods = goods


def _asked(found: Published, event: PaymentRequested, at: datetime, _: int) -> None:
    checkout = found.checkout(event.checkout_id)
    checkout.asked_at, checkout.payment_id = at, event.payment_id
    checkout.on_shipment = event.capture == "on-shipment"


def _ended(found: Published, event: CheckoutFailed | CheckoutCanceled | CheckoutExpired, at: datetime, _: int) -> None:
    found.checkout(event.checkout_id).ended_at = at


def _confirmed(found: Published, event: OrderConfirmed, _at: datetime, _: int) -> None:
    found.orders[event.order_id] = Order(
        number=event.number,
        checkout_id=event.checkout_id,
        payment_id=event.payment_id,
        total_minor=event.totals.total_minor,
        currency=event.currency,
        placed_at=event.placed_at,
        goods={line.line_id: (line.sku, line.quantity) for line in event.lines},
    )


def _canceled(found: Published, event: OrderCanceled, at: datetime, _: int) -> None:
    found.after_order(event.order_id).canceled_at = at


def _refunded(found: Published, event: OrderRefunded, _at: datetime, _: int) -> None:
    goods = {line.line_id: line.quantity for line in event.lines}
    found.after_order(event.order_id).refunds[event.refund_id] = (goods, event.restock)


def _refund_failed(found: Published, event: OrderRefundFailed, _at: datetime, _: int) -> None:
    found.after_order(event.order_id).failed_refunds.add(event.refund_id)


def _shipped(found: Published, event: ShipmentDispatched, at: datetime, _: int) -> None:
    after = found.after_order(event.order_id)
    after.shipments[event.shipment_id] = {line.line_id: line.quantity for line in event.lines}
    after.first_shipped_at = min(after.first_shipped_at or at, at)


def _returned(found: Published, event: ReturnReceived, _at: datetime, _: int) -> None:
    if event.restock:
        goods = {line.line_id: line.quantity for line in event.lines}
        found.after_order(event.order_id).returns[event.return_id] = goods


def _paid(
    found: Published,
    event: PaymentAuthorized | PaymentDeclined | PaymentVoided | PaymentExpired | PaymentCaptured | PaymentUnknown,
    at: datetime,
    _: int,
) -> None:
    payment = found.payments.setdefault(event.payment_id, Payment(event.checkout_id))
    if isinstance(event, PaymentUnknown):
        payment.unknown_at = max(payment.unknown_at or at, at)
        return
    payment.heard_at = max(payment.heard_at or at, at)
    if isinstance(event, PaymentCaptured):
        payment.captured_at = min(payment.captured_at or at, at)
        payment.captured_minor = max(payment.captured_minor, event.captured_minor)


def _refund(
    found: Published, event: RefundRequested | RefundPending | RefundSucceeded | RefundFailed, at: datetime, _: int
) -> None:
    refund = found.refunds.setdefault(event.refund_id, Refund(at, event.payment_id, event.amount_minor))
    refund.asked_at = min(refund.asked_at, at)
    if isinstance(event, RefundSucceeded):
        refund.succeeded_at = at
        refund.is_unasked = event.cause == NO_ORDER
    elif isinstance(event, RefundFailed):
        refund.failed_at = at


def _stock(found: Published, event: StockCounted | StockAdjusted, at: datetime, sequence: int) -> None:
    counted = isinstance(event, StockCounted)
    quantity = event.quantity if isinstance(event, StockCounted) else event.delta
    # A sequence is taken once, whoever repeats it.
    found.inventory.setdefault(event.sku, {}).setdefault(sequence, Inventory(at, event.location, quantity, counted))


Note = Callable[[Published, Any, datetime, int], None]
NOTES: Mapping[type[Event], Note] = {
    CheckoutRequested: _requested,
    CartFrozen: _frozen,
    PaymentRequested: _asked,
    CheckoutFailed: _ended,
    CheckoutCanceled: _ended,
    CheckoutExpired: _ended,
    OrderConfirmed: _confirmed,
    OrderCanceled: _canceled,
    OrderRefunded: _refunded,
    OrderRefundFailed: _refund_failed,
    ShipmentDispatched: _shipped,
    ReturnReceived: _returned,
    PaymentAuthorized: _paid,
    PaymentDeclined: _paid,
    PaymentVoided: _paid,
    PaymentExpired: _paid,
    PaymentCaptured: _paid,
    PaymentUnknown: _paid,
    RefundRequested: _refund,
    RefundPending: _refund,
    RefundSucceeded: _refund,
    RefundFailed: _refund,
    StockCounted: _stock,
    StockAdjusted: _stock,
}
"""The events that count, and what is noted of each."""
