"""Events of the checkout service: checkouts (`checkout.v1`) and the orders they become (`order.v1`)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from libs.common.contracts import Currency, Event, KeptSku, Minor, Quantity, Sequence, Text, event

FailureReason = Literal[
    "cart-not-found",
    "cart-empty",
    "cart-unavailable",
    "product-unavailable",
    "out-of-stock",
    "payment-declined",
    "payment-failed",
    "payment-capture-failed",
    "amount-mismatch",
    "timed-out",
    "canceled",
]


@event("checkout.v1", "checkout.requested", aggregate="checkout_id")
class CheckoutRequested(Event):
    """A shopper wants to buy a cart; the cart answers `cart.frozen` or `cart.freeze-refused`."""

    checkout_id: UUID
    cart_id: UUID
    subject_id: UUID
    attempt: Sequence | None = None
    """Which of this subject's checkouts of this cart it is: there is a next one only when all before it came to nothing."""


PAYMENT_METHOD: Final = r"pm_[A-Za-z0-9_]{1,250}"
"""A payment method as the provider names it. What it calls `tok_…`, `src_…` or `card_…` may be a card's own data."""


@event("checkout.v1", "payment.requested", aggregate="checkout_id")
class PaymentRequested(Event):
    """Hold this amount. The only way a payment comes into being."""

    checkout_id: UUID
    payment_id: UUID
    order_id: UUID
    amount_minor: Minor
    currency: Currency
    method: Text
    capture: Literal["on-confirmation", "on-shipment"]
    quote_hash: str
    subject_id: UUID
    confirmation: Text | None = None
    """`client`: the payer confirms in their own browser, and `method` is empty. Absent: we confirm with `method`."""
    challenge: Text | None = None
    """`any`: cards were refused lately, so the issuer is to ask whoever pays for proof, if it can. Absent: as it sees fit."""
    return_url: Text | None = None
    """The shop's page that the issuer's leads its buyer back to. Absent: none, which asks of that page what a frame would."""


@event("checkout.v1", "payment.void-requested", aggregate="checkout_id", or_by="payment_id")
class PaymentVoidRequested(Event):
    """Let go of the money that is held, or hold none."""

    checkout_id: UUID
    payment_id: UUID
    reason: FailureReason


@event("checkout.v1", "refund.requested", aggregate="refund_id")
class RefundRequested(Event):
    """Give this much of a captured payment back."""

    refund_id: UUID
    payment_id: UUID
    checkout_id: UUID
    order_id: UUID
    amount_minor: Minor
    currency: Currency
    reason: Text


@event("checkout.v1", "order.status-told", aggregate="question_id")
class OrderStatusTold(Event):
    """The answer to `order.status-asked`: whether an order stands on this payment. While that is open nothing is told.

    `none`: there is no such order, and there never will be.
    """

    question_id: UUID
    payment_id: UUID
    checkout_id: UUID
    order_id: UUID
    status: Literal["confirmed", "canceled", "none"]


@event("checkout.v1", "checkout.failed", aggregate="checkout_id")
class CheckoutFailed(Event):
    """The checkout ended without an order; no money is held for it."""

    checkout_id: UUID
    cart_id: UUID
    reason: FailureReason


@event("checkout.v1", "checkout.canceled", aggregate="checkout_id")
class CheckoutCanceled(Event):
    """The buyer changed their mind, and no money is held for it."""

    checkout_id: UUID
    cart_id: UUID
    reason: FailureReason


@event("checkout.v1", "checkout.expired", aggregate="checkout_id")
class CheckoutExpired(Event):
    """It took too long, and no money is held for it."""

    checkout_id: UUID
    cart_id: UUID
    reason: FailureReason


@event("checkout.v1", "card-testing.suspected", aggregate="suspect_id")
class CardTestingSuspected(Event):
    """As many cards were refused as there may be, of one buyer, from one address or in the whole shop.

    No more of that buyer's, or of guests from that address, are tried before `until`; a shop is stricter with guests until
    then. No address stands here: `suspect_id` is the same whenever it is the same one.
    """

    suspect_id: UUID
    by: Literal["subject", "address", "tenant"]
    declined_count: Quantity
    window_seconds: Quantity
    until: datetime
    subject_id: UUID | None = None
    """The buyer. Absent: it is not about one."""


Availability = Literal["in_stock", "low_stock", "backorder", "out_of_stock"]


@event("checkout.v1", "stock.availability-changed", aggregate="sku")
class StockAvailabilityChanged(Event):
    """How a product is to be had, roughly: told when that becomes another, not with each sale. A hint, and no promise."""

    sku: KeptSku
    availability: Availability


@event("checkout.v1", "tenant.provisioned", aggregate="tenant_id")
class TenantProvisioned(Event):
    """The checkout service can serve this tenant."""

    tenant_id: UUID
    service: Literal["checkout"]
    tenant_version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderLine:
    """One line of an order, at the price that was agreed."""

    line_id: str
    sku: KeptSku
    name: Text
    quantity: Quantity
    unit_minor: Minor
    total_minor: Minor
    """Unit price times quantity, before discount and tax."""
    discount_minor: Minor | None = None
    """The line's share of the discount. Absent: not told."""
    tax_minor: Minor | None = None
    """The line's share of the tax. Absent: not told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """What an order costs: subtotal - discount + shipping + tax = total."""

    subtotal_minor: Minor
    discount_minor: Minor
    shipping_minor: Minor
    tax_minor: Minor
    total_minor: Minor
    tax_included: bool = False
    """The prices include the tax, so it is shown and not added."""


@event("order.v1", "order.confirmed", aggregate="order_id")
class OrderConfirmed(Event):
    """Funds are held and stock is sold: the order happens. Exactly one per checkout, ever.

    One that costs nothing never had a payment, whatever id it would have had.
    """

    order_id: UUID
    number: int
    checkout_id: UUID
    cart_id: UUID
    payment_id: UUID
    subject_id: UUID
    currency: Currency
    lines: tuple[OrderLine, ...]
    totals: Totals
    placed_at: datetime


@event("order.v1", "order.canceled", aggregate="order_id")
class OrderCanceled(Event):
    """The order is off and its stock is free again. Money that is held for it is to be let go of, money taken given back."""

    order_id: UUID
    checkout_id: UUID
    cart_id: UUID
    payment_id: UUID
    reason: Text
    total_minor: Minor | None = None
    """What it cost: with 0 there never was a payment. Absent: not told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderQuantity:
    """So many of one line of an order."""

    line_id: str
    quantity: Quantity


@event("order.v1", "order.refunded", aggregate="order_id")
class OrderRefunded(Event):
    """The buyer has this much of the order's money back; `refunded_minor` in all."""

    order_id: UUID
    refund_id: UUID
    amount_minor: Minor
    currency: Currency
    refunded_minor: Minor
    lines: tuple[OrderQuantity, ...]
    restock: bool | None = None
    """Whether the goods of these lines went back on the shelf for it. Absent: not told."""


@event("order.v1", "order.refund-failed", aggregate="order_id")
class OrderRefundFailed(Event):
    """What `order.refunded` said of this refund is so no more: its money came back to us. `refunded_minor` in all is left.

    Goods that were put on the shelf for it stay there; its lines may be refunded again.
    """

    order_id: UUID
    refund_id: UUID
    amount_minor: Minor
    currency: Currency
    refunded_minor: Minor
    lines: tuple[OrderQuantity, ...]
    code: Text


@event("order.v1", "order.fulfilled", aggregate="order_id")
class OrderFulfilled(Event):
    """A shipment of the order left the house."""

    order_id: UUID
    shipment_id: Text
    lines: tuple[OrderQuantity, ...]


@event("order.v1", "order.lookup-requested", aggregate="lookup_id")
class OrderLookupRequested(Event):
    """Somebody named this order's number and its buyer's address. Whoever writes to buyers may send that buyer a link to it.

    Neither the address nor a link stands here: the reader asks for the order with its own credentials.
    """

    lookup_id: UUID
    order_id: UUID


@event("checkout.v1", "tenant.erased", aggregate="tenant_id")
class TenantErased(Event):
    """The checkout service has nothing of this tenant any more. The digest is that of its export, of what was deleted."""

    tenant_id: UUID
    service: Literal["checkout"]
    tenant_version: int
    row_count: int
    sha256: str
