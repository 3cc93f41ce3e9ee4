"""What the provider's answers, and what is seen of its refunds, make of ours. News may come late, twice and in any order."""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID, uuid5

from libs.common.contracts import Event
from libs.common.contracts.payments import RefundPending, RefundSucceeded
from libs.common.errors import ConflictError
from services.payments.domain.money.ledger import Entry, EntryKind, exchanged, transfer
from services.payments.domain.money.refund import (
    RESERVING,
    STANDS,
    TRANSITIONS,
    UNNAMED_FAILURE,
    R,
    Refund,
    RefundDecision,
    failed_event,
)
from services.payments.domain.money.refund_asking import ORPHANED, begun, operation_of, plan_refund
from services.payments.domain.payment.payment import Payment
from services.payments.domain.provider.concluding import judge, settle
from services.payments.domain.provider.operation import OPEN, PLANNED_LEASE, SPENT_KEY, Operation, counts
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

CANCELED = "canceled"
FOUND = "found at the provider"
DIFFERS = "refund-differs"
NO_ORDER = "no-order"
"""The word that others know for `ORPHANED`."""
FACTS = {EntryKind.REFUND: "refund", EntryKind.REFUND_RETURN: "refund-return"}
"""What an entry about a refund is named after, once of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A decision upon the outcome of a call, beside the call that had it."""

    operation: Operation
    decision: RefundDecision


def record(
    payment: Payment, refund: Refund, operation: Operation, tries: int, outcome: Outcome, now: datetime
) -> Recorded | None:
    """Decide upon the outcome of one try. None: the call is over, or in other hands; this is a late twin."""
    if not counts(operation, tries):
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


def observe(
    payment: Payment, known: Refund | None, call: Operation | None, refund_id: UUID, seen: SeenRefund, now: datetime
) -> RefundDecision | None:
    """Take note of where the provider says that a refund stands, or adopt it. None: nothing new, or for its own call to say.

    A `call` that may be in flight is its executor's to conclude upon. Raises ConflictError for what is not of this refund.
    """
    if known is None:
        return adopt(payment, refund_id, seen, now)
    if known.payment_id != payment.id or not is_of(seen, payment, known):
        raise ConflictError(DIFFERS, f"what the provider says of {seen.provider_id} is not of this refund")
    if call is not None and call.state in OPEN:
        return None
    return follow(payment, known, seen)


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
    decision = _account_for(_count(payment, refund, moved), refund, moved)
    return replace(decision, entries=decision.entries + _exchanged(payment, moved, seen)) if decision.entries else decision


def _exchanged(payment: Payment, refund: Refund, seen: SeenRefund) -> tuple[Entry, ...]:
    """What the provider took from its account's currency for what has just gone back, or put there of what came back."""
    comes = refund.state is not R.SUCCEEDED
    exchange = seen.return_exchange if comes else seen.exchange
    return exchanged(payment, refund.amount_minor, exchange, comes=comes)


def fail(payment: Payment, refund: Refund, code: str) -> RefundDecision:
    """The provider will not: nothing went, and nothing will."""
    moved = replace(refund, state=R.FAILED, failure_code=code, due_at=None)
    return _account_for(_count(payment, refund, moved), refund, moved)


def adopt(payment: Payment, refund_id: UUID, seen: SeenRefund, now: datetime) -> RefundDecision:
    """A refund that the provider has and we have not: made elsewhere, or lost here. Its money did move, so we count it.

    One that is over without having moved any takes nothing. Raises ConflictError while the payment has not so much left.
    """
    if STANDS[seen.status] in {R.FAILED, R.CANCELED}:
        return _adopt_failed(payment, begun(payment, refund_id, seen.amount_minor, FOUND, now), seen)
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
    return RefundDecision(payment=payment, refund=failed, events=(failed_event(payment, failed),))


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
            events, entries = (_succeeded(payment, after),), _entries(payment, after, EntryKind.REFUND)
        case R.FAILED | R.CANCELED:
            events = (failed_event(payment, after),)
            entries = _entries(payment, after, EntryKind.REFUND_RETURN) if before.state is R.SUCCEEDED else ()
        case R.REQUESTED | R.UNKNOWN:
            pass
    return RefundDecision(payment=payment, refund=after, events=events, entries=entries)


def _entries(payment: Payment, refund: Refund, kind: EntryKind) -> tuple[Entry, ...]:
    """The buyer has it back, or had it and their bank returned it to us."""
    return transfer(payment, kind, uuid5(refund.id, FACTS[kind]), refund.amount_minor, refund.provider_id or "")


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
        cause=NO_ORDER if refund.reason == ORPHANED else None,
    )
