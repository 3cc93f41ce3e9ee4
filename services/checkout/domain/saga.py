"""The checkout saga: it alone decides. Messages, API calls and timers are only signals to this machine.

started → frozen → quoted → reserved → paying → confirmed
and to `failed`, `canceled` or `expired` from everywhere before. From `paying` those are reached by way of `canceling` and
`expiring`, and only once payments has answered that no money is held: what was reserved stays reserved until then.
What costs nothing is confirmed as soon as it is reserved: payments is not asked for anything.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Literal, TypeAlias
from uuid import UUID, uuid5

from libs.common.contracts import Event
from libs.common.contracts.checkout import (
    CheckoutCanceled,
    CheckoutExpired,
    CheckoutFailed,
    CheckoutRequested,
    FailureReason,
    OrderConfirmed,
    PaymentRequested,
    PaymentVoidRequested,
)
from libs.common.contracts.payments import PaymentAuthorized
from libs.common.decision import Aggregate
from libs.common.errors import ConflictError
from services.checkout.domain.order import Order, OrderState, PaymentState, placed
from services.checkout.domain.quote import Address, Quote
from services.checkout.domain.stock import Allocation

CaptureMode: TypeAlias = Literal["on-confirmation", "on-shipment"]
Confirmation: TypeAlias = Literal["server", "client"]
"""Who confirms the payment: we, with the method we were given, or the payer in their own browser."""

PATIENCE = timedelta(minutes=1)
"""How long payments may take to let go before somebody is told, and it is asked again."""


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
    S.RESERVED: frozenset({S.PAYING, S.CONFIRMED, S.FAILED, S.CANCELED, S.EXPIRED}),
    S.PAYING: frozenset({S.CONFIRMED, S.FAILED, S.CANCELING, S.EXPIRING}),
    S.CANCELING: frozenset({S.CANCELED, S.FAILED}),
    # A buyer who cancels does not want the order either that money held in time would still make.
    S.EXPIRING: frozenset({S.EXPIRED, S.CONFIRMED, S.CANCELING, S.FAILED}),
    S.CONFIRMED: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELED: frozenset(),
    S.EXPIRED: frozenset(),
}
Reason = FailureReason | Literal["reservation-limit", "price-changed", "waiting-room"]
"""Why a checkout ended. The last three are for its buyer: others are told that there was none for them."""
RESERVATION_LIMIT: Literal["reservation-limit"] = "reservation-limit"
PRICE_CHANGED: Literal["price-changed"] = "price-changed"
BEFORE_PAYMENT = frozenset({S.STARTED, S.RESERVED})
"""Where a checkout rests before payments is asked for anything: it can end at once."""
FINAL = frozenset(state for state, onward in TRANSITIONS.items() if not onward)


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkout(Aggregate):
    """One attempt to buy one cart."""

    OWNER: ClassVar[str | None] = "subject_id"
    id: UUID
    subject_id: UUID
    cart_id: UUID
    state: CheckoutState
    reason: Reason | None = None
    method: str
    """Of the provider. Empty when the payer chooses one in their own browser."""
    confirmation: Confirmation = "server"
    email: str | None = None
    shipping_method: str | None = None
    shipping_address: Address | None = None
    billing_address: Address | None = None
    accept_price_changes: bool = False
    """The buyer takes the prices as they are, also those that rose since they put the goods in their cart."""
    body_digest: str
    currency: str | None = None
    total_minor: int | None = None
    quote: Quote | None = None
    allocations: tuple[Allocation, ...] = ()
    order_id: UUID
    payment_id: UUID
    action_required: bool = False
    """The payer has to do something before the money can be held."""
    started_at: datetime
    expires_at: datetime
    """When it is given up, unless it is final by then."""
    origin: UUID | None = None
    """Where its payer is, as refused cards are counted by address."""
    is_watched: bool = False
    """Some were refused before: if its payment is held, that takes one back."""
    is_challenged: bool = False
    """So many were that its payer is asked for proof."""
    waiting_for: str | None = None
    """The product whose waiting room its buyer has to go through first."""
    return_url: str | None = None
    """Where its buyer is led back to, should their bank want to see them."""

    @property
    def is_final(self) -> bool:
        """Whether it will never change again."""
        return self.state in FINAL

    @property
    def is_free(self) -> bool:
        """Whether it has a quote by which nothing is to be paid."""
        return self.total_minor == 0

    @property
    def is_payable(self) -> bool:
        """Whether the buyer said how they pay."""
        return bool(self.method) or self.confirmation == "client"

    @property
    def asks_for_money(self) -> bool:
        """Whether payments was asked to hold its money, now or before its end."""
        is_quoted = self.quote is not None and self.state is not S.RESERVED and self.reason != PRICE_CHANGED
        return is_quoted and self.is_payable and not self.is_free

    @property
    def is_waiting_for_payer(self) -> bool:
        """Whether nothing will happen unless the payer acts."""
        return self.state is S.RESERVED or (self.state is S.PAYING and self.action_required)

    @property
    def news(self) -> Iterable[str]:
        """Its id for those who wait for an end, or for what they must do themselves; the other for those who watch."""
        if self.state is S.STARTED:
            return ()  # nobody knows of it yet
        ends = self.is_final or self.is_waiting_for_payer
        return (str(self.id), watched(self.id)) if ends else (watched(self.id),)


def watched(checkout_id: UUID) -> str:
    """What is called out at every step of a checkout."""
    return f"{checkout_id}/step"


def start(checkout: Checkout, attempt: int) -> tuple[Checkout, CheckoutRequested]:
    """Ask the cart to freeze. By the number of the attempt it knows that the ones before are over, should it not have heard."""
    cart_id, subject_id = checkout.cart_id, checkout.subject_id
    return checkout, CheckoutRequested(checkout_id=checkout.id, cart_id=cart_id, subject_id=subject_id, attempt=attempt)


def new_checkout(
    *,
    tenant_id: UUID,
    checkout_id: UUID,
    subject_id: UUID,
    cart_id: UUID,
    method: str,
    confirmation: Confirmation,
    email: str | None,
    shipping_method: str | None,
    shipping_address: Address | None,
    billing_address: Address | None,
    accept_price_changes: bool,
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
        confirmation=confirmation,
        email=email,
        shipping_method=shipping_method,
        shipping_address=shipping_address,
        billing_address=billing_address,
        accept_price_changes=accept_price_changes,
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


def reserve(checkout: Checkout, priced: Quote, allocations: Iterable[Allocation]) -> Checkout:
    """Frozen, quoted and reserved in one decision: what it costs is fixed, and the goods are there.

    Who has not said with what they pay may take no longer over it than the quote is good for.
    """
    reserved = replace(move(_quoted(checkout, priced), S.RESERVED), allocations=tuple(allocations))
    return reserved if checkout.method else replace(reserved, expires_at=priced.expires_at or checkout.expires_at)


def _quoted(checkout: Checkout, priced: Quote) -> Checkout:
    quoted = move(move(checkout, S.FROZEN), S.QUOTED)
    return replace(quoted, quote=priced, currency=priced.currency, total_minor=priced.total_minor)


def tell_prices(checkout: Checkout, priced: Quote) -> tuple[Checkout, Event]:
    """Prices rose since the buyer put the goods in their cart: end without asking for money, and show what it costs now."""
    return _end(_quoted(checkout, priced), S.FAILED, PRICE_CHANGED)


def turn_away(checkout: Checkout, sku: str) -> tuple[Checkout, Event]:
    """Its buyer has not been let in to one of its products: end without asking for money, and say where to queue."""
    return _end(replace(checkout, waiting_for=sku), S.FAILED, "waiting-room")


def correct_email(checkout: Checkout, email: str | None) -> Checkout:
    """The buyer gives another address to write to. Who gives none takes none back, and what is over stays as it is."""
    return checkout if email is None or checkout.is_final else replace(checkout, email=email)


def choose_payment(checkout: Checkout, method: str, confirmation: Confirmation) -> Checkout:
    """The buyer has seen what it costs, and says how they pay."""
    return replace(checkout, method=method, confirmation=confirmation)


def begin_payment(checkout: Checkout, priced: Quote, capture: CaptureMode) -> tuple[Checkout, PaymentRequested]:
    """Ask payments to hold the money for what is reserved: in the decision that reserved it, or when the buyer says how."""
    return move(checkout, S.PAYING), PaymentRequested(
        checkout_id=checkout.id,
        payment_id=checkout.payment_id,
        order_id=checkout.order_id,
        amount_minor=priced.total_minor,
        currency=priced.currency,
        method=checkout.method,
        capture=capture,
        quote_hash=priced.digest,
        subject_id=checkout.subject_id,
        confirmation="client" if checkout.confirmation == "client" else None,
        challenge="any" if checkout.is_challenged else None,
        return_url=checkout.return_url,
    )


def wait_for_payer(checkout: Checkout) -> Checkout:
    """The payer has to do something first."""
    return replace(checkout, action_required=True)


# --- How it ends without an order ---------------------------------------------------------------------------------


def fail(checkout: Checkout, reason: Reason) -> tuple[Checkout, Event]:
    """End without an order. The caller gives back what was reserved in the same decision."""
    return _end(checkout, S.FAILED, reason)


def cancel(checkout: Checkout) -> tuple[Checkout, Event]:
    """The buyer does not want it any more. Raises ConflictError when it is too late."""
    demand_unfinished(checkout)
    if checkout.state in BEFORE_PAYMENT:
        return _end(checkout, S.CANCELED, "canceled")
    return _let_go(checkout, S.CANCELING, "canceled")


def demand_unfinished(checkout: Checkout) -> None:
    """Refuse what is asked of a checkout that has come to its end. Raises ConflictError."""
    if checkout.is_final:
        facts = {"checkout_id": str(checkout.id), "state": str(checkout.state), "reason": checkout.reason}
        raise ConflictError("checkout-final", f"the checkout is {checkout.state}", **{k: v for k, v in facts.items() if v})


def expire(checkout: Checkout) -> tuple[Checkout, Event]:
    """It took too long: nothing was asked of payments yet, or what was is to be let go of."""
    if checkout.state in BEFORE_PAYMENT:
        return _end(checkout, S.EXPIRED, "timed-out")
    return _let_go(checkout, S.EXPIRING, "timed-out")


def void_mismatch(checkout: Checkout) -> tuple[Checkout, Event]:
    """What was authorized is not what was quoted: let it go, and fail once payments has."""
    return _let_go(checkout, S.CANCELING, "amount-mismatch")


def told(reason: Reason) -> FailureReason:
    """The word that others know for it."""
    match reason:
        case "reservation-limit" | "waiting-room":
            return "out-of-stock"
        case "price-changed":
            return "product-unavailable"
        case _:
            return reason


def void(checkout: Checkout, reason: FailureReason) -> PaymentVoidRequested:
    """Ask payments to let go of whatever it holds for this checkout."""
    return PaymentVoidRequested(checkout_id=checkout.id, payment_id=checkout.payment_id, reason=reason)


def without_money(checkout: Checkout, refused: FailureReason | None = None) -> tuple[Checkout, Event]:
    """Payments holds nothing and will not: end as was decided, or for what payments says. The caller gives the stock back."""
    match checkout.state:
        case S.CANCELING if checkout.reason != "amount-mismatch":
            return _end(checkout, S.CANCELED, "canceled")
        case S.CANCELING:
            return _end(checkout, S.FAILED, "amount-mismatch")
        case S.EXPIRING if refused is None:
            return _end(checkout, S.EXPIRED, "timed-out")
        case _:
            return _end(checkout, S.FAILED, refused or "payment-failed")


def _let_go(checkout: Checkout, to: CheckoutState, reason: FailureReason) -> tuple[Checkout, Event]:
    return replace(move(checkout, to), reason=reason), void(checkout, reason)


def _end(checkout: Checkout, to: CheckoutState, reason: Reason) -> tuple[Checkout, Event]:
    ended = replace(move(checkout, to), reason=reason, allocations=(), action_required=False)
    says: dict[CheckoutState, type[CheckoutFailed | CheckoutCanceled | CheckoutExpired]] = {
        S.FAILED: CheckoutFailed,
        S.CANCELED: CheckoutCanceled,
        S.EXPIRED: CheckoutExpired,
    }
    return ended, says[to](checkout_id=checkout.id, cart_id=checkout.cart_id, reason=told(reason))


# --- How it becomes an order --------------------------------------------------------------------------------------


def matches(checkout: Checkout, authorized: PaymentAuthorized) -> bool:
    """Whether the money held is the money quoted."""
    return (authorized.payment_id, authorized.amount_minor, authorized.currency) == (
        checkout.payment_id,
        checkout.total_minor,
        checkout.currency,
    )


def confirm(checkout: Checkout, priced: Quote, number: int, now: datetime) -> tuple[Checkout, Order, OrderConfirmed]:
    """The order happens: its money is held, or none is owed. Raises ConflictError for one that payments was not asked about."""
    if checkout.state is S.RESERVED and not checkout.is_free:
        raise ConflictError("checkout-state", "money is owed for it and was not asked for", state=str(checkout.state))
    confirmed = replace(move(checkout, S.CONFIRMED), reason=None, action_required=False)
    order = Order(
        tenant_id=checkout.tenant_id,
        id=checkout.order_id,
        number=number,
        state=OrderState.CONFIRMED,
        payment_state=PaymentState.AUTHORIZED if priced.total_minor else PaymentState.CAPTURED,
        subject_id=checkout.subject_id,
        checkout_id=checkout.id,
        cart_id=checkout.cart_id,
        payment_id=checkout.payment_id,
        currency=priced.currency,
        lines=priced.order_lines,
        shipping_method=checkout.shipping_method,
        shipping_address=checkout.shipping_address,
        discounts=priced.discounts,
        quote_hash=priced.digest,
        allocations=checkout.allocations,
        placed_at=now,
        **asdict(priced.totals),
    )
    return confirmed, order, placed(order, priced.totals)
