"""The checkout saga: it alone decides. Messages, API calls and timers are only signals to this machine.

started → frozen → quoted → reserved → paying → confirmed
and to `failed` from everywhere before; from `paying` only once payments has answered that no money is held.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import ClassVar
from uuid import UUID, uuid5

from libs.common.contracts.cart import CartFrozen
from libs.common.contracts.checkout import (
    CheckoutFailed,
    CheckoutRequested,
    FailureReason,
    OrderConfirmed,
    OrderLine,
    PaymentRequested,
    PaymentVoidRequested,
    Totals,
)
from libs.common.contracts.payments import PaymentAuthorized
from libs.common.errors import ConflictError
from libs.common.messaging.decision import Aggregate
from services.checkout.domain.stock import Allocation


class CheckoutState(StrEnum):
    """Where a checkout stands."""

    STARTED = "started"
    FROZEN = "frozen"
    QUOTED = "quoted"
    RESERVED = "reserved"
    PAYING = "paying"
    CONFIRMED = "confirmed"
    CANCELING = "canceling"
    EXPIRING = "expiring"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


S = CheckoutState
TRANSITIONS: dict[CheckoutState, frozenset[CheckoutState]] = {
    S.STARTED: frozenset({S.FROZEN, S.FAILED, S.CANCELED, S.EXPIRED}),
    S.FROZEN: frozenset({S.QUOTED, S.FAILED}),
    S.QUOTED: frozenset({S.RESERVED, S.FAILED}),
    S.RESERVED: frozenset({S.PAYING, S.FAILED, S.CANCELED, S.EXPIRED}),
    S.PAYING: frozenset({S.CONFIRMED, S.FAILED, S.CANCELING, S.EXPIRING}),
    S.CANCELING: frozenset({S.CANCELED, S.FAILED}),
    S.EXPIRING: frozenset({S.EXPIRED, S.CONFIRMED, S.FAILED}),
    S.CONFIRMED: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELED: frozenset(),
    S.EXPIRED: frozenset(),
}
FINAL = frozenset(state for state, onward in TRANSITIONS.items() if not onward)
NO_ISSUERS_REFUSAL = frozenset({"provider-rejected", "amount-not-payable", "currency-not-supported"})
"""The decline codes of refusals that nobody's card is at fault for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuoteLine:
    """One line of a quote."""

    line_id: str
    sku: str
    name: str
    category: str
    quantity: int
    unit_minor: int
    total_minor: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Quote:
    """What the order will cost, fixed. subtotal - discount + shipping + tax = total."""

    currency: str
    lines: tuple[QuoteLine, ...]
    subtotal_minor: int
    discount_minor: int
    shipping_minor: int
    tax_minor: int
    total_minor: int

    @property
    def digest(self) -> str:
        """SHA-256 of the whole quote: what the provider, the order and the buyer agree on."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class CartClaim(Aggregate):
    """Which checkout has one subject's claim on one cart: the lock that makes two checkouts of a cart one."""

    id: UUID
    checkout_id: UUID


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkout(Aggregate):
    """One attempt to buy one cart."""

    id: UUID
    subject_id: UUID
    cart_id: UUID
    state: CheckoutState
    reason: str | None = None
    method: str
    email: str | None = None
    body_digest: str
    currency: str | None = None
    total_minor: int | None = None
    quote: Quote | None = None
    allocations: tuple[Allocation, ...] = ()
    order_id: UUID
    payment_id: UUID
    started_at: datetime
    expires_at: datetime

    @property
    def is_final(self) -> bool:
        """Whether it will never change again."""
        return self.state in FINAL

    @property
    def is_news(self) -> bool:
        """Only an end is worth waking those who wait for one."""
        return self.is_final


class OrderState(StrEnum):
    """Where an order stands."""

    CONFIRMED = "confirmed"
    CANCELED = "canceled"


class PaymentState(StrEnum):
    """Where an order's money is."""

    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    DISPUTED = "disputed"


ORDER_TRANSITIONS: dict[OrderState, frozenset[OrderState]] = {
    OrderState.CONFIRMED: frozenset({OrderState.CANCELED}),
    OrderState.CANCELED: frozenset(),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Order(Aggregate):
    """A checkout that came true."""

    id: UUID
    number: int
    state: OrderState
    payment_state: PaymentState
    fulfilment_state: str = "unfulfilled"
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
    total_minor: int
    captured_minor: int = 0
    placed_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderCounter(Aggregate):
    """The last order number of a tenant. Taken last in the confirming transaction, so numbers have no gaps."""

    KEY: ClassVar[str] = "tenant_id"
    last_number: int = 0


def claim_id(cart_id: UUID, subject_id: UUID) -> UUID:
    """A subject's claim on a cart. Somebody else's claim on the same cart is another, and will find no cart."""
    return uuid5(cart_id, str(subject_id))


def start(checkout: Checkout) -> tuple[Checkout, CheckoutRequested]:
    """Ask the cart to freeze."""
    event = CheckoutRequested(checkout_id=checkout.id, cart_id=checkout.cart_id, subject_id=checkout.subject_id)
    return checkout, event


def new_checkout(
    *,
    tenant_id: UUID,
    checkout_id: UUID,
    subject_id: UUID,
    cart_id: UUID,
    method: str,
    email: str | None,
    body_digest: str,
    now: datetime,
    expires_at: datetime,
) -> Checkout:
    """A checkout at its start. Payment and order are named now, so that a lost row is planned again under the same names."""
    return Checkout(
        tenant_id=tenant_id,
        id=checkout_id,
        subject_id=subject_id,
        cart_id=cart_id,
        state=S.STARTED,
        method=method,
        email=email,
        body_digest=body_digest,
        order_id=uuid5(checkout_id, "order"),
        payment_id=uuid5(checkout_id, "payment:1"),
        started_at=now,
        expires_at=expires_at,
    )


def move(checkout: Checkout, to: CheckoutState) -> Checkout:
    """Change state, if the table says so. Raises ConflictError otherwise."""
    if to not in TRANSITIONS[checkout.state]:
        raise ConflictError(
            "checkout-state", f"a checkout that is {checkout.state} cannot become {to}", state=str(checkout.state)
        )
    return replace(checkout, state=to)


def quote(frozen: CartFrozen) -> Quote:
    """Fix what the cart costs. Nothing is configured yet, so shipping and tax are 0."""
    lines = tuple(
        QuoteLine(
            line_id=str(number),
            sku=line.sku,
            name=line.name,
            category=line.category,
            quantity=line.quantity,
            unit_minor=line.unit_minor,
            total_minor=line.unit_minor * line.quantity,
        )
        for number, line in enumerate(frozen.lines, 1)
    )
    subtotal = sum(line.total_minor for line in lines)
    discount = min(subtotal, sum(discount.amount_minor for discount in frozen.discounts))
    return Quote(
        currency=frozen.currency,
        lines=lines,
        subtotal_minor=subtotal,
        discount_minor=discount,
        shipping_minor=0,
        tax_minor=0,
        total_minor=subtotal - discount,
    )


def begin_payment(checkout: Checkout, priced: Quote, allocations: Iterable[Allocation]) -> tuple[Checkout, PaymentRequested]:
    """Frozen, quoted and reserved in one decision: ask payments to hold the money."""
    for step in (S.FROZEN, S.QUOTED, S.RESERVED, S.PAYING):
        checkout = move(checkout, step)
    paying = replace(
        checkout, quote=priced, currency=priced.currency, total_minor=priced.total_minor, allocations=tuple(allocations)
    )
    return paying, PaymentRequested(
        checkout_id=checkout.id,
        payment_id=checkout.payment_id,
        order_id=checkout.order_id,
        amount_minor=priced.total_minor,
        currency=priced.currency,
        method=checkout.method,
        capture="on-confirmation",
        quote_hash=priced.digest,
        subject_id=checkout.subject_id,
    )


def fail(checkout: Checkout, reason: FailureReason) -> tuple[Checkout, CheckoutFailed]:
    """End without an order. The caller gives back what was reserved in the same decision."""
    failed = replace(move(checkout, S.FAILED), reason=reason, allocations=())
    return failed, CheckoutFailed(checkout_id=checkout.id, cart_id=checkout.cart_id, reason=reason)


def void_mismatch(checkout: Checkout) -> tuple[Checkout, PaymentVoidRequested]:
    """What was authorized is not what was quoted: let it go, and fail once payments has."""
    canceling = replace(move(checkout, S.CANCELING), reason="amount-mismatch")
    return canceling, void(checkout, "amount-mismatch")


def void(checkout: Checkout, reason: FailureReason) -> PaymentVoidRequested:
    """Ask payments to let go of whatever it holds for this checkout."""
    return PaymentVoidRequested(checkout_id=checkout.id, payment_id=checkout.payment_id, reason=reason)


def matches(checkout: Checkout, authorized: PaymentAuthorized) -> bool:
    """Whether the money held is the money quoted."""
    return (authorized.amount_minor, authorized.currency) == (checkout.total_minor, checkout.currency)


def confirm(checkout: Checkout, priced: Quote, number: int, now: datetime) -> tuple[Checkout, Order, OrderConfirmed]:
    """The order happens."""
    confirmed = move(checkout, S.CONFIRMED)
    lines = tuple(
        OrderLine(
            line_id=line.line_id,
            sku=line.sku,
            name=line.name,
            quantity=line.quantity,
            unit_minor=line.unit_minor,
            total_minor=line.total_minor,
        )
        for line in priced.lines
    )
    totals = Totals(
        subtotal_minor=priced.subtotal_minor,
        discount_minor=priced.discount_minor,
        shipping_minor=priced.shipping_minor,
        tax_minor=priced.tax_minor,
        total_minor=priced.total_minor,
    )
    event = OrderConfirmed(
        order_id=checkout.order_id,
        number=number,
        checkout_id=checkout.id,
        cart_id=checkout.cart_id,
        payment_id=checkout.payment_id,
        subject_id=checkout.subject_id,
        currency=priced.currency,
        lines=lines,
        totals=totals,
        placed_at=now,
    )
    order = Order(
        tenant_id=checkout.tenant_id,
        id=checkout.order_id,
        number=number,
        state=OrderState.CONFIRMED,
        payment_state=PaymentState.AUTHORIZED,
        subject_id=checkout.subject_id,
        checkout_id=checkout.id,
        cart_id=checkout.cart_id,
        payment_id=checkout.payment_id,
        currency=priced.currency,
        lines=lines,
        placed_at=now,
        **asdict(totals),
    )
    return confirmed, order, event


def count_order(counter: OrderCounter) -> OrderCounter:
    """One more."""
    return replace(counter, last_number=counter.last_number + 1)


def capture(order: Order, captured_minor: int) -> Order:
    """The money is ours: `captured_minor` of it in all."""
    return replace(order, captured_minor=captured_minor, payment_state=PaymentState.CAPTURED)


def demand(lines: Sequence[QuoteLine]) -> dict[str, int]:
    """What a quote wants of each product, added up before anything is checked."""
    wanted: dict[str, int] = {}
    for line in lines:
        wanted[line.sku] = wanted.get(line.sku, 0) + line.quantity
    return wanted
