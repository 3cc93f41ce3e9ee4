"""The payment machine: from a request to money held, taken, let go or refused. One decision a function, no I/O.

A decision says the payment's next state, what it publishes, and the operation it plans. A state in `WORKING` has one
open operation, `unknown` has one whose outcome nobody knows, every other state has none.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypeAlias
from uuid import UUID

from libs.common.contracts import Event
from libs.common.contracts.checkout import PaymentRequested, PaymentVoidRequested
from libs.common.contracts.payments import (
    PaymentDeclined,
    PaymentVoided,
)
from libs.common.errors import ConflictError
from libs.common.messaging.decision import Aggregate
from libs.common.money import CURRENCIES
from services.payments.domain.operation import (
    PLANNED_LEASE,
    Operation,
    OperationKind,
    OperationState,
    idempotency_key,
    operation_id,
)

CaptureMode: TypeAlias = Literal["on-confirmation", "on-shipment"]

NOBODY = UUID(int=0)
NO_CURRENCY = "XXX"
"""ISO 4217's code for none: the payment was voided before it was requested, if it ever is."""
AMOUNT_NOT_PAYABLE = "amount-not-payable"
CURRENCY_NOT_SUPPORTED = "currency-not-supported"


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


S = PaymentState
TRANSITIONS: dict[PaymentState, frozenset[PaymentState]] = {
    S.CREATED: frozenset({S.AUTHORIZING, S.DECLINED, S.VOIDED}),
    S.AUTHORIZING: frozenset({S.REQUIRES_ACTION, S.AUTHORIZED, S.DECLINED, S.VOIDING, S.VOIDED, S.UNKNOWN}),
    S.REQUIRES_ACTION: frozenset({S.AUTHORIZED, S.DECLINED, S.VOIDING}),
    S.AUTHORIZED: frozenset({S.CAPTURING, S.VOIDING, S.EXPIRED}),
    S.CAPTURING: frozenset({S.CAPTURED, S.VOIDING, S.VOIDED, S.UNKNOWN}),
    S.VOIDING: frozenset({S.VOIDED, S.CAPTURED, S.UNKNOWN}),
    # Back to what it was doing: an unknown outcome decides nothing by itself.
    S.UNKNOWN: frozenset({S.AUTHORIZING, S.CAPTURING, S.VOIDING}),
    S.CAPTURED: frozenset(),
    S.VOIDED: frozenset(),
    S.DECLINED: frozenset(),
    S.EXPIRED: frozenset(),
}
WORKING = frozenset({S.AUTHORIZING, S.CAPTURING, S.VOIDING})
"""Where a payment has an open operation that nobody despairs of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Payment(Aggregate):
    """An amount that one checkout holds and its order takes. `captured ≤ authorized ≤ amount`, always."""

    id: UUID
    checkout_id: UUID
    order_id: UUID = NOBODY
    subject_id: UUID = NOBODY
    amount_minor: int = 0
    currency: str = NO_CURRENCY
    method: str = ""
    capture: CaptureMode = "on-confirmation"
    quote_hash: str = ""
    state: PaymentState = S.CREATED
    intent_id: str | None = None
    authorized_minor: int = 0
    captured_minor: int = 0
    decline_code: str | None = None
    expires_at: datetime | None = None
    """When the hold lapses by itself."""
    requested_capture: bool = False
    """The order is confirmed: the money is taken as soon as it is held."""
    void_reason: str | None = None
    """The checkout wants nothing held: what is, is let go as soon as that can be done."""
    created_at: datetime

    @property
    def is_requested(self) -> bool:
        """False for one that was voided before anybody heard of it."""
        return self.currency != NO_CURRENCY


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a payment: its next state, what it publishes, and what the provider is to be asked."""

    payment: Payment
    events: tuple[Event, ...] = ()
    planned: Operation | None = None


def move(payment: Payment, to: PaymentState) -> Payment:
    """Change state, if the table says so. Raises ConflictError otherwise."""
    if to not in TRANSITIONS[payment.state]:
        message = f"a payment that is {payment.state} cannot become {to}"
        raise ConflictError("payment-state", message, state=str(payment.state))
    return replace(payment, state=to)


# --- What the checkout asks ---------------------------------------------------------------------------------------


def request(known: Payment | None, tenant_id: UUID, asked: PaymentRequested, now: datetime) -> Decision | None:
    """Begin a payment; one that is there stays as it is. None: nothing to do."""
    if known is not None and known.is_requested:
        return None
    payment = replace(
        known or Payment(tenant_id=tenant_id, id=asked.payment_id, checkout_id=asked.checkout_id, created_at=now),
        order_id=asked.order_id,
        subject_id=asked.subject_id,
        amount_minor=asked.amount_minor,
        currency=asked.currency,
        method=asked.method,
        capture=asked.capture,
        quote_hash=asked.quote_hash,
    )
    if known is not None:
        return Decision(payment)
    refusal = _refusal(payment)
    if refusal is not None:
        return Decision(*decline(payment, refusal))
    return work(move(payment, S.AUTHORIZING), (), now)


def _refusal(payment: Payment) -> str | None:
    """Why the provider need not even be asked, if so."""
    if payment.currency not in CURRENCIES:
        return CURRENCY_NOT_SUPPORTED
    return None if payment.amount_minor > 0 else AMOUNT_NOT_PAYABLE


def void(known: Payment | None, tenant_id: UUID, asked: PaymentVoidRequested, now: datetime) -> Decision | None:
    """Let go of what is held, or as soon as it is known to be; of nothing, at once. None: nothing to do."""
    if known is None:
        never = Payment(tenant_id=tenant_id, id=asked.payment_id, checkout_id=asked.checkout_id, created_at=now)
        return Decision(*release(replace(never, void_reason=asked.reason)))
    if known.void_reason is not None:
        return None
    payment = replace(known, void_reason=asked.reason)
    match payment.state:
        case S.AUTHORIZED | S.REQUIRES_ACTION:
            return work(move(payment, S.VOIDING), (), now)
        case S.CREATED | S.AUTHORIZING | S.UNKNOWN:
            return Decision(payment)
        case S.CAPTURING | S.CAPTURED | S.VOIDING:
            # Remembered as well: money that was taken although it was not wanted is owed back.
            return Decision(payment)
        case S.VOIDED | S.DECLINED | S.EXPIRED:
            return None


def capture(payment: Payment, now: datetime) -> Decision | None:
    """The order is confirmed: take the money, or as soon as it is held. None: nothing to do."""
    if payment.capture != "on-confirmation" or payment.requested_capture:
        return None
    payment = replace(payment, requested_capture=True)
    if payment.state is S.AUTHORIZED:
        return work(move(payment, S.CAPTURING), (), now)
    return Decision(payment)


# --- What the provider is asked -----------------------------------------------------------------------------------


def work(payment: Payment, events: tuple[Event, ...], now: datetime) -> Decision:
    """Plan what the payment's state calls for, if it calls for anything."""
    return Decision(payment, events, plan(payment, now) if payment.state in WORKING else None)


def plan(payment: Payment, now: datetime) -> Operation:
    """The operation that a working payment waits for: a function of the payment, so that a lost one is made again."""
    kind, parameters = _due_operation(payment)
    identity = operation_id(payment.id, kind, 1)
    return Operation(
        tenant_id=payment.tenant_id,
        id=identity,
        payment_id=payment.id,
        kind=kind,
        attempt=1,
        idempotency_key=idempotency_key(identity),
        request=parameters,
        state=OperationState.SENDING,
        tries=1,
        first_send_at=now,
        due_at=now + PLANNED_LEASE,
    )


def _due_operation(payment: Payment) -> tuple[OperationKind, dict[str, Any]]:
    intent = {"intent_id": payment.intent_id}
    if payment.state is S.CAPTURING:
        return OperationKind.CAPTURE, {**intent, "amount_minor": payment.authorized_minor}
    if payment.state is S.VOIDING:
        return OperationKind.CANCEL, intent
    if payment.intent_id is not None:
        return OperationKind.CONFIRM, {**intent, "method": payment.method}
    return OperationKind.CREATE, {
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
        "method": payment.method,
        "capture": "manual",
        "metadata": {
            "tenant_id": str(payment.tenant_id),
            "payment_id": str(payment.id),
            "checkout_id": str(payment.checkout_id),
            "order_id": str(payment.order_id),
            "quote_hash": payment.quote_hash,
        },
    }


# --- How it ends without money -------------------------------------------------------------------------------------


def decline(payment: Payment, code: str) -> tuple[Payment, tuple[Event, ...]]:
    """Nothing is held, and with this method nothing will be."""
    declined = PaymentDeclined(payment_id=payment.id, checkout_id=payment.checkout_id, code=code)
    return replace(move(payment, S.DECLINED), decline_code=code), (declined,)


def release(payment: Payment) -> tuple[Payment, tuple[Event, ...]]:
    """Nothing is held any more, or never was."""
    voided = PaymentVoided(payment_id=payment.id, checkout_id=payment.checkout_id)
    return move(payment, S.VOIDED), (voided,)
