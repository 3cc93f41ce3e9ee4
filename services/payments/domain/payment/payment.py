"""The payment machine: its states, what a payment is, and how it ends without money. No I/O.

A state in `WORKING` has one open operation, `unknown` has one whose outcome nobody knows, every other state has none.
What is asked of a payment stands in `asking.py`, what the provider is asked for it in `planning.py`; what the provider's
answers make of it in `recording.py`, and what is seen of its object without our having asked in `observing.py`.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Literal, TypeAlias
from uuid import UUID

from libs.common.contracts import Event
from libs.common.contracts.payments import PaymentDeclined, PaymentVoided
from libs.common.decision import Aggregate
from libs.common.errors import ConflictError
from services.payments.domain.payment.attempt import Attempt
from services.payments.domain.provider.operation import Operation
from services.payments.domain.provider.outcome import Exchange

CaptureMode: TypeAlias = Literal["on-confirmation", "on-shipment"]
Confirmation: TypeAlias = Literal["server", "client"]
"""Who puts the method to the issuer: we, or the payer's own browser."""

NOBODY = UUID(int=0)
NO_CURRENCY = "XXX"
"""ISO 4217's code for none: the payment was voided before it was requested, if it ever is."""


class PaymentState(StrEnum):
    """Where a payment stands."""

    CREATED = "created"
    AUTHORIZING = "authorizing"
    REQUIRES_ACTION = "requires_action"
    AUTHORIZED = "authorized"
    CAPTURING = "capturing"
    CAPTURED = "captured"
    VOIDING = "voiding"
    VOIDED = "voided"
    DECLINED = "declined"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


class OrderStanding(StrEnum):
    """What checkout has said of the order that the payment is for."""

    AWAITED = "awaited"
    CONFIRMED = "confirmed"
    CANCELED = "canceled"


S = PaymentState
TRANSITIONS: dict[PaymentState, frozenset[PaymentState]] = {
    S.CREATED: frozenset({S.AUTHORIZING, S.DECLINED, S.VOIDED}),
    # Captured at once where somebody took it past us before we knew that it was held.
    S.AUTHORIZING: frozenset({S.REQUIRES_ACTION, S.AUTHORIZED, S.CAPTURED, S.DECLINED, S.VOIDING, S.VOIDED, S.UNKNOWN}),
    S.REQUIRES_ACTION: frozenset({S.AUTHORIZED, S.DECLINED, S.VOIDING, S.VOIDED, S.CAPTURED}),
    S.AUTHORIZED: frozenset({S.CAPTURING, S.CAPTURED, S.VOIDING, S.EXPIRED}),
    # Back to authorized after a part that was not the last, or was refused.
    S.CAPTURING: frozenset({S.CAPTURED, S.AUTHORIZED, S.VOIDING, S.VOIDED, S.EXPIRED, S.UNKNOWN}),
    S.VOIDING: frozenset({S.VOIDED, S.DECLINED, S.CAPTURED, S.UNKNOWN}),
    # Back to what it was doing: an unknown outcome decides nothing by itself.
    S.UNKNOWN: frozenset({S.AUTHORIZING, S.CAPTURING, S.VOIDING}),
    # Money on a payment that is over is the provider's anomaly: it is let go of, or known to be owed back.
    S.DECLINED: frozenset({S.VOIDING, S.CAPTURED}),
    S.CAPTURED: frozenset(),
    S.VOIDED: frozenset(),
    S.EXPIRED: frozenset(),
}
WORKING = frozenset({S.AUTHORIZING, S.CAPTURING, S.VOIDING})
"""Where a payment has an open operation that nobody despairs of."""
OVER = frozenset({S.CAPTURED, S.VOIDED, S.DECLINED, S.EXPIRED})
"""Where nothing is held any more, and nothing more is wanted of the provider."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Payment(Aggregate):
    """An amount that one checkout holds and its order takes.

    `refunding + refunded ≤ captured` and `captured + capturing ≤ authorized ≤ amount`, always.
    """

    OWNER: ClassVar[str | None] = "subject_id"
    id: UUID
    checkout_id: UUID
    order_id: UUID = NOBODY
    subject_id: UUID = NOBODY
    amount_minor: int = 0
    currency: str = NO_CURRENCY
    method: str = ""
    capture: CaptureMode = "on-confirmation"
    confirmation: Confirmation = "server"
    challenge: bool = False
    """Whether the issuer is to ask whoever pays for proof (3-D Secure), if it can."""
    return_url: str | None = None
    """The shop's page that the issuer's leads whoever pays back to."""
    quote_hash: str = ""
    state: PaymentState = S.CREATED
    intent_id: str | None = None
    charge_id: str | None = None
    authorized_minor: int = 0
    capturing_minor: int = 0
    """What the capture takes that is under way."""
    capturing_final: bool = True
    """Whether that capture lets go of what it does not take."""
    captured_minor: int = 0
    """What was taken so far."""
    refunding_minor: int = 0
    """What of it is set aside for refunds that are under way."""
    refunded_minor: int = 0
    attempt_count: int = 0
    """How often a method was put to its issuer, as far as anybody told us."""
    capture_count: int = 0
    decline_code: str | None = None
    expires_at: datetime | None = None
    """When the hold lapses by itself."""
    order_standing: OrderStanding = OrderStanding.AWAITED
    requested_capture: bool = False
    """The order is confirmed, or has left the house: the money is taken as soon as it is held."""
    void_reason: str | None = None
    """The checkout wants nothing held: what is, is let go as soon as that can be done."""
    order_asked_at: datetime | None = None
    """When checkout was last asked what became of the order, of which nothing was heard though its money was taken."""
    operation_id: UUID | None = None
    """The operation that it waits for. Refunds are not among these: they have operations of their own."""
    operation_attempt: int = 1
    """Which of its keys that operation goes under."""
    operation_at: datetime | None = None
    """When that was planned, and so the earliest that it can have been sent."""
    look_at: datetime | None = None
    """When the payment is looked at again if nothing has happened by then."""
    look_count: int = 0
    """How often that was done in this state."""
    created_at: datetime

    @property
    def is_requested(self) -> bool:
        """False for one that was voided before anybody heard of it."""
        return self.currency != NO_CURRENCY

    @property
    def held_minor(self) -> int:
        """What is held and was not taken yet."""
        return self.authorized_minor - self.captured_minor

    @property
    def is_unwanted(self) -> bool:
        """Whether nothing is to be held. A confirmed order outlives the wish to void: checkout's last word."""
        return self.void_reason is not None and self.order_standing is not OrderStanding.CONFIRMED


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderPayment(Aggregate):
    """Which payment an order is paid with, where a shipment captures it: shipments are told of by order."""

    KEY: ClassVar[str] = "order_id"
    order_id: UUID
    payment_id: UUID


@dataclass(frozen=True, slots=True)
class Taken:
    """Money that has just become ours."""

    amount_minor: int
    fee_minor: int | None
    """What the provider kept of it, if it said."""
    reference: str
    """What the provider calls the movement or, while it has not said, its object."""
    exchange: Exchange | None = None
    """What it came to in the account's own currency, if that is another; the fee is in that, then."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a payment: its next state, what it publishes, and what the provider is to be asked."""

    payment: Payment
    events: tuple[Event, ...] = ()
    planned: Operation | None = None
    attempts: tuple[Attempt, ...] = ()
    """Attempts that began or ended with it."""
    taken: Taken | None = None


def move(payment: Payment, to: PaymentState) -> Payment:
    """Change state, if the table says so. Raises ConflictError otherwise."""
    if to not in TRANSITIONS[payment.state]:
        message = f"a payment that is {payment.state} cannot become {to}"
        raise ConflictError("payment-state", message, state=str(payment.state))
    return replace(payment, state=to)


# --- How it ends without money -------------------------------------------------------------------------------------


def decline(payment: Payment, code: str) -> tuple[Payment, tuple[Event, ...]]:
    """Nothing is held, and with this method nothing will be."""
    declined = PaymentDeclined(payment_id=payment.id, checkout_id=payment.checkout_id, code=code)
    return replace(move(payment, S.DECLINED), decline_code=code), (declined,)


def release(payment: Payment) -> tuple[Payment, tuple[Event, ...]]:
    """Nothing is held any more, or never was. Of one that was declined before, everybody has been told."""
    if payment.decline_code is not None:
        return move(payment, S.DECLINED), ()
    voided = PaymentVoided(payment_id=payment.id, checkout_id=payment.checkout_id)
    return move(payment, S.VOIDED), (voided,)
