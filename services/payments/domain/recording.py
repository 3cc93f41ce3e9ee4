"""What the provider's answers make of a payment. An answer counts once, for the try it was obtained in."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from libs.common.contracts import Event
from libs.common.contracts.payments import PaymentAuthorized, PaymentCaptured, PaymentUnknown
from libs.common.errors import ConflictError
from services.payments.domain.operation import OPEN, Operation, OperationKind, judge, settle
from services.payments.domain.outcome import (
    Declined,
    IntentStatus,
    Outcome,
    Rejected,
    Succeeded,
    Throttled,
    Unknown,
    Verdict,
)
from services.payments.domain.payment import Decision, Payment, PaymentState, S, decline, move, release, work

PROVIDER_REJECTED = "provider-rejected"

DOING: dict[OperationKind, PaymentState] = {
    OperationKind.CREATE: S.AUTHORIZING,
    OperationKind.CONFIRM: S.AUTHORIZING,
    OperationKind.CAPTURE: S.CAPTURING,
    OperationKind.CANCEL: S.VOIDING,
}
"""The state in which a payment has an open operation of each kind."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A decision upon an outcome, beside the operation that had it."""

    operation: Operation
    decision: Decision


def record(payment: Payment, operation: Operation, tries: int, outcome: Outcome, now: datetime) -> Recorded | None:
    """Decide upon the outcome of one try. None: the operation is over, or in other hands; this is a late twin."""
    if operation.state not in OPEN or operation.tries != tries:
        return None
    outcome = judge(operation.kind, outcome, as_asked=_as_asked(payment, operation.kind, outcome))
    return Recorded(settle(operation, outcome, now), _follow(payment, operation.kind, outcome, now))


def _as_asked(payment: Payment, kind: OperationKind, outcome: Outcome) -> bool:
    """Whether the provider speaks of this payment's money, and of no more of it than there can be."""
    if not isinstance(outcome, Succeeded):
        return True
    whole = outcome.currency.upper() == payment.currency and outcome.amount_minor == payment.amount_minor
    if kind is not OperationKind.CREATE:
        whole = whole and outcome.intent_id == payment.intent_id
    match outcome.status:
        case IntentStatus.AUTHORIZED:
            return whole and outcome.amount_capturable_minor == payment.amount_minor
        case IntentStatus.CAPTURED:
            asked = payment.authorized_minor
            exact = kind is not OperationKind.CAPTURE or outcome.amount_received_minor == asked
            return whole and exact and 0 < outcome.amount_received_minor <= asked
        case (
            IntentStatus.NEEDS_METHOD
            | IntentStatus.NEEDS_CONFIRMATION
            | IntentStatus.NEEDS_ACTION
            | IntentStatus.PROCESSING
            | IntentStatus.CANCELED
        ):
            return whole


def _follow(payment: Payment, kind: OperationKind, outcome: Outcome, now: datetime) -> Decision:
    match outcome:
        case Throttled():
            return Decision(payment)
        case Unknown():
            if payment.state is S.UNKNOWN:
                return Decision(payment)
            unknown = PaymentUnknown(payment_id=payment.id, checkout_id=payment.checkout_id)
            return Decision(move(payment, S.UNKNOWN), (unknown,))
        case Succeeded() | Declined() | Rejected():
            known = move(payment, DOING[kind]) if payment.state is S.UNKNOWN else payment
            payment, events = _end(known, kind, outcome)
            return work(payment, tuple(events), now)


def _end(payment: Payment, kind: OperationKind, verdict: Verdict) -> tuple[Payment, Sequence[Event]]:
    match kind:
        case OperationKind.CREATE:
            return _created(payment, verdict)
        case OperationKind.CONFIRM:
            return _confirmed(payment, verdict)
        case OperationKind.CAPTURE:
            return _captured(payment, verdict)
        case OperationKind.CANCEL:
            return _canceled(payment, verdict)


def _created(payment: Payment, verdict: Verdict) -> tuple[Payment, Sequence[Event]]:
    match verdict:
        case Succeeded():
            payment = replace(payment, intent_id=verdict.intent_id)
            return (move(payment, S.VOIDING) if _is_unwanted(payment) else payment), ()
        case Declined():
            return decline(payment, verdict.code)
        case Rejected():
            return decline(payment, PROVIDER_REJECTED)


def _confirmed(payment: Payment, verdict: Verdict) -> tuple[Payment, Sequence[Event]]:
    match verdict:
        case Succeeded(status=IntentStatus.CANCELED):
            return release(payment)
        case Succeeded(status=IntentStatus.NEEDS_ACTION):
            return move(payment, S.VOIDING if _is_unwanted(payment) else S.REQUIRES_ACTION), ()
        case Succeeded():
            return _authorized(payment, verdict)
        case Declined():
            return decline(payment, verdict.code)
        case Rejected():
            return decline(payment, PROVIDER_REJECTED)


def _authorized(payment: Payment, verdict: Succeeded) -> tuple[Payment, Sequence[Event]]:
    held = replace(payment, authorized_minor=verdict.amount_capturable_minor, expires_at=verdict.expires_at)
    if _is_unwanted(held):
        return move(held, S.VOIDING), ()
    authorized = PaymentAuthorized(
        payment_id=held.id,
        checkout_id=held.checkout_id,
        amount_minor=held.authorized_minor,
        currency=held.currency,
        expires_at=held.expires_at,
    )
    held = move(held, S.AUTHORIZED)
    return (move(held, S.CAPTURING) if held.requested_capture else held), (authorized,)


def _captured(payment: Payment, verdict: Verdict) -> tuple[Payment, Sequence[Event]]:
    match verdict:
        case Succeeded(status=IntentStatus.CANCELED):
            return release(payment)
        case Succeeded():
            return _take(payment, verdict)
        case Declined() | Rejected():
            # It will never be ours, so it must not stay held either.
            return move(payment, S.VOIDING), ()


def _canceled(payment: Payment, verdict: Verdict) -> tuple[Payment, Sequence[Event]]:
    match verdict:
        case Succeeded(status=IntentStatus.CAPTURED):
            return _take(payment, verdict)
        case Succeeded():
            return release(payment)
        case Declined() | Rejected():
            # `judge` lets none through: a refused cancel decides nothing.
            raise ConflictError("hold-stands", f"the provider would not release it: {verdict.code}")


def _is_unwanted(payment: Payment) -> bool:
    """A confirmed order outlives the wish to void: checkout's last word."""
    return payment.void_reason is not None and not payment.requested_capture


def _take(payment: Payment, verdict: Succeeded) -> tuple[Payment, tuple[Event, ...]]:
    taken = replace(move(payment, S.CAPTURED), captured_minor=verdict.amount_received_minor)
    captured = PaymentCaptured(
        payment_id=taken.id,
        checkout_id=taken.checkout_id,
        order_id=taken.order_id,
        amount_minor=taken.captured_minor,
        captured_minor=taken.captured_minor,
    )
    return taken, (captured,)
