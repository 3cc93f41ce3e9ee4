"""The refund machine: money that goes back to the buyer. One decision a function, no I/O.

What a refund takes is reserved on its payment in the decision that makes it, so refunds that are asked for at once never
give back more than was captured. One that fails, even after it had succeeded, frees its amount again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID, uuid5

from libs.common.contracts import Event
from libs.common.contracts.payments import RefundFailed, RefundPending, RefundSucceeded
from libs.common.decision import Aggregate
from libs.common.errors import ConflictError, RejectedError
from libs.common.sensitive import without_sensitive
from services.payments.domain.money import ledger
from services.payments.domain.money.ledger import Entry
from services.payments.domain.payment.asking import AMOUNT_NOT_PAYABLE, is_payable, kept_minor
from services.payments.domain.payment.payment import Payment
from services.payments.domain.provider.operation import (
    OPEN,
    PLANNED_LEASE,
    SPENT_KEY,
    Operation,
    OperationKind,
    OperationState,
    idempotency_key,
    judge,
    settle,
)
from services.payments.domain.provider.outcome import (
    Declined,
    Outcome,
    RefundStatus,
    Rejected,
    SeenRefund,
    Succeeded,
    Throttled,
    Unknown,
)
from services.payments.domain.provider.webhook import TakenNotice, Worth

WAITS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 30, 120, 720))
"""When a refund that is not over is looked into, by look; the last wait repeats."""
EXCEEDS_CAPTURE = "refund-exceeds-capture"
NOT_CAPTURED = "payment-not-captured"
OTHER_CURRENCY = "refund-currency"
CANCELED = "canceled"
ORPHANED = "captured for no order"
FOUND = "found at the provider"
DIFFERS = "refund-differs"
UNNAMED_FAILURE = "unknown"


class RefundState(StrEnum):
    """Where a refund stands."""

    REQUESTED = "requested"
    UNKNOWN = "unknown"
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


R = RefundState
TRANSITIONS: dict[RefundState, frozenset[RefundState]] = {
    R.REQUESTED: frozenset({R.UNKNOWN, R.PENDING, R.SUCCEEDED, R.FAILED, R.CANCELED}),
    # Back to being asked for, under the next key, once it is certain that nothing came of the last.
    R.UNKNOWN: frozenset({R.REQUESTED, R.PENDING, R.SUCCEEDED, R.FAILED, R.CANCELED}),
    R.PENDING: frozenset({R.SUCCEEDED, R.FAILED, R.CANCELED}),
    # A bank may return what it had accepted.
    R.SUCCEEDED: frozenset({R.FAILED}),
    R.FAILED: frozenset(),
    R.CANCELED: frozenset(),
}
ASKING = frozenset({R.REQUESTED, R.UNKNOWN})
"""Where a refund has one open operation."""
RESERVING = ASKING | {R.PENDING}
"""Where its amount is on its way: no longer ours to refund, not yet the buyer's."""

STANDS: Mapping[RefundStatus, RefundState] = {
    RefundStatus.PENDING: R.PENDING,
    RefundStatus.REQUIRES_ACTION: R.PENDING,
    RefundStatus.SUCCEEDED: R.SUCCEEDED,
    RefundStatus.FAILED: R.FAILED,
    RefundStatus.CANCELED: R.CANCELED,
}
"""What the provider's word for it means to us. An action that it requires is the buyer's: we wait."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refund(Aggregate):
    """A part of a captured payment on its way back."""

    id: UUID
    payment_id: UUID
    checkout_id: UUID
    order_id: UUID
    amount_minor: int
    currency: str
    reason: str
    state: RefundState = R.REQUESTED
    provider_id: str | None = None
    failure_code: str | None = None
    attempt: int = 1
    """Which of its keys its call goes under."""
    asked_at: datetime
    """When that call was planned."""
    looks: int = 0
    """How often it was looked into because nothing had been heard."""
    due_at: datetime | None = None
    """When it is looked into, unless it moves before. None: it is over."""
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundDecision:
    """What becomes of a refund and of its payment's numbers, and what the provider is to be asked."""

    payment: Payment
    refund: Refund
    events: tuple[Event, ...] = ()
    planned: Operation | None = None
    entries: tuple[Entry, ...] = ()


def left_minor(payment: Payment) -> int:
    """How much of a payment may still be given back."""
    return payment.captured_minor - payment.refunding_minor - payment.refunded_minor


def is_orphaned(payment: Payment) -> bool:
    """Whether there is money of this payment here that belongs to no order: every capture ends in an order or a refund."""
    return left_minor(payment) > 0 and payment.order_standing != "confirmed"


def refund_operation_id(refund_id: UUID, attempt: int) -> UUID:
    """The same for the same call, so that a lost row comes back under the same key."""
    return uuid5(refund_id, f"{OperationKind.REFUND}:{attempt}")


def found_refund_id(payment_id: UUID, provider_id: str) -> UUID:
    """What we call a refund that the provider has and nobody asked us for."""
    return uuid5(payment_id, provider_id)


# --- What is asked of us -------------------------------------------------------------------------------------------


def plan_refund(
    payment: Payment,
    refund_id: UUID,
    amount_minor: int | None,
    reason: str,
    now: datetime,
    *,
    lease: timedelta = PLANNED_LEASE,
) -> RefundDecision:
    """Reserve the amount and plan the call; no amount is all that is left.

    Raises ConflictError if there is not so much, and RejectedError if it is no amount that the provider can pay.
    `lease`: how long the call is the planning process's own; none, where that process makes no calls.
    """
    if amount_minor is not None and not is_payable(amount_minor, payment.currency):
        raise RejectedError(AMOUNT_NOT_PAYABLE, f"{amount_minor} of {payment.currency} is no amount that can be paid")
    if payment.captured_minor == 0:
        raise ConflictError(NOT_CAPTURED, f"nothing was captured of a payment that is {payment.state}", state=str(payment.state))
    left = left_minor(payment)
    amount_minor = left if amount_minor is None else amount_minor
    if amount_minor > left or left == 0:
        raise ConflictError(EXCEEDS_CAPTURE, f"of this payment, {left} may still be refunded", refundable_minor=left)
    refund = _of(payment, refund_id, amount_minor, reason, now)
    reserved = replace(payment, refunding_minor=payment.refunding_minor + amount_minor)
    return RefundDecision(payment=reserved, refund=refund, planned=operation_of(reserved, refund, now, lease))


def refuse(payment: Payment, refund_id: UUID, amount_minor: int, reason: str, code: str, now: datetime) -> RefundDecision:
    """A refund that failed before it began: nobody is asked, and whoever wanted it is told."""
    refused = _of(payment, refund_id, kept_minor(amount_minor), reason, now)
    refund = replace(refused, state=R.FAILED, failure_code=code, due_at=None)
    return RefundDecision(payment=payment, refund=refund, events=(_failed(payment, refund),))


def _of(payment: Payment, refund_id: UUID, amount_minor: int, reason: str, now: datetime) -> Refund:
    return Refund(
        tenant_id=payment.tenant_id,
        id=refund_id,
        payment_id=payment.id,
        checkout_id=payment.checkout_id,
        order_id=payment.order_id,
        amount_minor=amount_minor,
        currency=payment.currency,
        reason=without_sensitive(reason),
        asked_at=now,
        due_at=now + WAITS[0],
        created_at=now,
    )


def operation_of(payment: Payment, refund: Refund, now: datetime, lease: timedelta) -> Operation:
    """The call that a refund waits for: a function of the refund, so that a lost one is made again under its key."""
    identity = refund_operation_id(refund.id, refund.attempt)
    metadata = {
        "tenant_id": str(refund.tenant_id),
        "payment_id": str(refund.payment_id),
        "checkout_id": str(refund.checkout_id),
        "order_id": str(refund.order_id),
        "refund_id": str(refund.id),
    }
    return Operation(
        tenant_id=refund.tenant_id,
        id=identity,
        payment_id=refund.payment_id,
        refund_id=refund.id,
        kind=OperationKind.REFUND,
        attempt=refund.attempt,
        idempotency_key=idempotency_key(identity),
        request={
            "intent_id": payment.intent_id,
            "amount_minor": refund.amount_minor,
            "reason": refund.reason,
            "metadata": metadata,
        },
        state=OperationState.SENDING,
        tries=1,
        first_send_at=refund.asked_at,
        due_at=now + lease,
    )


# --- What the provider says ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A decision upon the outcome of a call, beside the call that had it."""

    operation: Operation
    decision: RefundDecision


def record(
    payment: Payment, refund: Refund, operation: Operation, tries: int, outcome: Outcome, now: datetime
) -> Recorded | None:
    """Decide upon the outcome of one try. None: the call is over, or in other hands; this is a late twin."""
    if operation.state not in OPEN or operation.tries != tries:
        return None
    as_asked = not isinstance(outcome, SeenRefund) or is_of(outcome, payment, refund)
    outcome = judge(operation, outcome, as_asked=as_asked)
    return Recorded(operation=settle(operation, outcome, now), decision=_conclude(payment, refund, outcome, now))


def _conclude(payment: Payment, refund: Refund, outcome: Outcome, now: datetime) -> RefundDecision:
    stays = RefundDecision(payment=payment, refund=refund)
    match outcome:
        case SeenRefund():
            return follow(payment, refund, outcome) or stays
        case Rejected(code=code) if code == SPENT_KEY:
            again = replace(refund, state=R.REQUESTED, attempt=refund.attempt + 1, asked_at=now)
            return RefundDecision(payment=payment, refund=again, planned=operation_of(payment, again, now, PLANNED_LEASE))
        case Declined() | Rejected():
            return fail(payment, refund, outcome.code)
        case Unknown() if refund.state is R.REQUESTED:
            return RefundDecision(payment=payment, refund=replace(refund, state=R.UNKNOWN))
        case Unknown() | Throttled() | Succeeded():
            return stays


def worth_of_refund(notice: TakenNotice, refund: Refund | None) -> Worth:
    """Whether the provider's refund should be read again; one without its provider's name is being made, or made elsewhere."""
    if refund is None or notice.status is None:
        return Worth.READ
    if STANDS[RefundStatus(notice.status)] not in TRANSITIONS[refund.state]:
        return Worth.NOTHING
    return Worth.READ


def is_of(seen: SeenRefund, payment: Payment, refund: Refund) -> bool:
    """Whether the provider speaks of this refund's money."""
    return (
        seen.amount_minor == refund.amount_minor
        and seen.currency.upper() == refund.currency
        and seen.intent_id in {None, payment.intent_id}
        and refund.provider_id in {None, seen.provider_id}
    )


def follow(payment: Payment, refund: Refund, seen: SeenRefund) -> RefundDecision | None:
    """Move to where the provider says that it stands. None: it is there, or beyond; news may come late and twice."""
    state = STANDS[seen.status]
    if state not in TRANSITIONS[refund.state]:
        return None
    moved = replace(
        refund,
        state=state,
        provider_id=seen.provider_id,
        failure_code=_failure_code(seen) if state in {R.FAILED, R.CANCELED} else None,
        due_at=refund.due_at if state in RESERVING else None,
    )
    return _account_for(_count(payment, refund, moved), refund, moved)


def fail(payment: Payment, refund: Refund, code: str) -> RefundDecision:
    """The provider will not: nothing went, and nothing will."""
    moved = replace(refund, state=R.FAILED, failure_code=code, due_at=None)
    return _account_for(_count(payment, refund, moved), refund, moved)


def adopt(payment: Payment, refund_id: UUID, seen: SeenRefund, now: datetime) -> RefundDecision:
    """A refund that the provider has and we have not: made elsewhere, or lost here. Its money did move, so we count it.

    One that is over without having moved any takes nothing. Raises ConflictError while the payment has not so much left.
    """
    if STANDS[seen.status] in {R.FAILED, R.CANCELED}:
        return _adopt_failed(payment, _of(payment, refund_id, seen.amount_minor, FOUND, now), seen)
    asked = plan_refund(payment, refund_id, seen.amount_minor, FOUND, now)
    followed = follow(asked.payment, asked.refund, seen) if is_of(seen, payment, asked.refund) else None
    if followed is None:
        raise ConflictError(DIFFERS, f"what the provider says of {seen.provider_id} is not of this payment")
    return followed


def _adopt_failed(payment: Payment, refund: Refund, seen: SeenRefund) -> RefundDecision:
    if not is_of(seen, payment, refund):
        raise ConflictError(DIFFERS, f"what the provider says of {seen.provider_id} is not of this payment")
    failed = replace(
        refund, state=STANDS[seen.status], provider_id=seen.provider_id, failure_code=_failure_code(seen), due_at=None
    )
    return RefundDecision(payment=payment, refund=failed, events=(_failed(payment, failed),))


def _failure_code(seen: SeenRefund) -> str:
    return CANCELED if seen.status is RefundStatus.CANCELED else seen.failure_code or UNNAMED_FAILURE


def _count(payment: Payment, before: Refund, after: Refund) -> Payment:
    """The payment's numbers once the refund has moved."""
    amount = after.amount_minor
    refunding = amount * ((after.state in RESERVING) - (before.state in RESERVING))
    refunded = amount * ((after.state is R.SUCCEEDED) - (before.state is R.SUCCEEDED))
    if not refunding and not refunded:
        return payment
    return replace(payment, refunding_minor=payment.refunding_minor + refunding, refunded_minor=payment.refunded_minor + refunded)


def _account_for(payment: Payment, before: Refund, after: Refund) -> RefundDecision:
    """What is published of a move, and what the ledger has of it."""
    events: tuple[Event, ...] = ()
    entries: tuple[Entry, ...] = ()
    match after.state:
        case R.PENDING:
            events = (_pending(after),)
        case R.SUCCEEDED:
            events, entries = (_succeeded(payment, after),), ledger.refunded(payment, after)
        case R.FAILED | R.CANCELED:
            events = (_failed(payment, after),)
            entries = ledger.refund_returned(payment, after) if before.state is R.SUCCEEDED else ()
        case R.REQUESTED | R.UNKNOWN:
            pass
    return RefundDecision(payment=payment, refund=after, events=events, entries=entries)


def _pending(refund: Refund) -> RefundPending:
    return RefundPending(
        refund_id=refund.id,
        payment_id=refund.payment_id,
        checkout_id=refund.checkout_id,
        order_id=refund.order_id,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
    )


def _succeeded(payment: Payment, refund: Refund) -> RefundSucceeded:
    return RefundSucceeded(
        refund_id=refund.id,
        payment_id=refund.payment_id,
        checkout_id=refund.checkout_id,
        order_id=refund.order_id,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        refunded_minor=payment.refunded_minor,
    )


def _failed(payment: Payment, refund: Refund) -> RefundFailed:
    return RefundFailed(
        refund_id=refund.id,
        payment_id=refund.payment_id,
        checkout_id=refund.checkout_id,
        order_id=refund.order_id,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        code=refund.failure_code or UNNAMED_FAILURE,
        refunded_minor=payment.refunded_minor,
    )
