"""The refund machine: money that goes back to the buyer.

What is asked of a refund stands in `refund_asking.py`, and what the provider says of one in `refund_recording.py`.
What a refund takes is reserved on its payment in the decision that makes it, so refunds that are asked for at once never
give back more than was captured. One that fails, even after it had succeeded, frees its amount again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID, uuid5

from libs.common.contracts import Event
from libs.common.contracts.payments import RefundFailed
from libs.common.decision import Aggregate
from libs.common.errors import ConflictError
from services.payments.domain.money.ledger import Entry
from services.payments.domain.payment.payment import Payment
from services.payments.domain.provider.operation import Operation, OperationKind
from services.payments.domain.provider.outcome import RefundStatus

WAITS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 30, 120, 720))
"""When a refund that is not over is looked into, by look; the last wait repeats."""
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
    closed_at: datetime | None = None
    """Of one that failed: when a person said that nothing is left to do about it."""
    closed_by: str | None = None
    closed_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundDecision:
    """What becomes of a refund and of its payment's numbers, and what the provider is to be asked."""

    payment: Payment
    refund: Refund
    events: tuple[Event, ...] = ()
    planned: Operation | None = None
    entries: tuple[Entry, ...] = ()


def close(refund: Refund, closed_by: str, reason: str, now: datetime) -> Refund:
    """Look at a refund that failed no more, for a person has seen to it. Raises ConflictError for any other."""
    if refund.state not in {R.FAILED, R.CANCELED}:
        raise ConflictError("refund-state", f"a refund that is {refund.state} has not failed", state=str(refund.state))
    if refund.closed_at is not None:
        raise ConflictError("refund-closed", "the refund was closed before", closed_by=str(refund.closed_by))
    return replace(refund, closed_at=now, closed_by=closed_by, closed_reason=reason)


def left_minor(payment: Payment) -> int:
    """How much of a payment may still be given back."""
    return payment.captured_minor - payment.refunding_minor - payment.refunded_minor


def refund_operation_id(refund_id: UUID, operation_attempt: int) -> UUID:
    """The same for the same call, so that a lost row comes back under the same key."""
    return uuid5(refund_id, f"{OperationKind.REFUND}:{operation_attempt}")


def found_refund_id(payment_id: UUID, provider_id: str) -> UUID:
    """What we call a refund that the provider has and nobody asked us for."""
    return uuid5(payment_id, provider_id)


def failed_event(payment: Payment, refund: Refund) -> RefundFailed:
    """What is published of a refund that failed, or was canceled."""
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
