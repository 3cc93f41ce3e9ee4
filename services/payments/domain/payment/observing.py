"""What is seen of the provider's payment without our having asked for a change: by a notice, a poll, a reconciliation.

What is seen may be old, may be seen twice, and comes in any order. So it never settles an operation, whose own answer is
on its way, and moves a payment forward only.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from services.payments.domain.payment.attempt import Attempt, AttemptState, end_attempt, open_attempt
from services.payments.domain.payment.payment import OVER, WORKING, Decision, Payment, PaymentState, S, move, release
from services.payments.domain.payment.planning import work
from services.payments.domain.payment.recording import authorized, declined, is_whole, lapsed, taken, taken_unheld
from services.payments.domain.provider.outcome import Declined, IntentStatus, Succeeded
from services.payments.domain.provider.webhook import TakenNotice, Worth

NEWS: Mapping[IntentStatus, frozenset[PaymentState]] = {
    IntentStatus.NEEDS_METHOD: frozenset(S) - OVER,
    # Two way stations: whatever comes of them has a notice of its own.
    IntentStatus.NEEDS_CONFIRMATION: frozenset(),
    IntentStatus.PROCESSING: frozenset(),
    IntentStatus.NEEDS_ACTION: frozenset({S.AUTHORIZING, S.UNKNOWN}),
    IntentStatus.AUTHORIZED: frozenset({S.CREATED, S.AUTHORIZING, S.REQUIRES_ACTION, S.UNKNOWN, S.DECLINED}),
    IntentStatus.CAPTURED: frozenset(S) - {S.CAPTURED},
    IntentStatus.CANCELED: frozenset(S) - OVER,
}
"""The payments to which it is news that the provider's stood so. For all others it is over and done with."""


def worth_of_intent(notice: TakenNotice, payment: Payment) -> Worth:
    """Whether the provider's payment should be read again, and now. A status that we have no word for tells nothing."""
    took_more = (notice.amount_minor or 0) > payment.captured_minor
    if not (notice.status is None or took_more or payment.state in NEWS[IntentStatus(notice.status)]):
        return Worth.NOTHING
    return Worth.LATER if payment.state in WORKING else Worth.READ


def observe(payment: Payment, attempt: Attempt | None, seen: Succeeded | Declined, now: datetime) -> Decision | None:
    """Follow the provider's payment; `attempt` is the newest. None: nothing new, or something that cannot be this one's."""
    if payment.operation_id is not None or payment.intent_id is None:
        return None
    if isinstance(seen, Declined):
        return _seen_declined(payment, attempt, seen, now) if seen.intent_id == payment.intent_id else None
    return _seen(payment, attempt, seen, now) if is_whole(payment, seen) else None


def _seen(payment: Payment, attempt: Attempt | None, seen: Succeeded, now: datetime) -> Decision | None:
    match payment.state:
        case S.REQUIRES_ACTION:
            return _seen_challenged(payment, attempt, seen, now)
        case S.AUTHORIZED:
            return _seen_held(payment, seen, now)
        case S.DECLINED:
            return _seen_after_all(payment, seen, now)
        case S.CREATED | S.AUTHORIZING | S.CAPTURING | S.VOIDING | S.UNKNOWN | S.CAPTURED | S.VOIDED | S.EXPIRED:
            return None


def _seen_declined(payment: Payment, attempt: Attempt | None, seen: Declined, now: datetime) -> Decision | None:
    if payment.state is not S.REQUIRES_ACTION:
        return None
    if payment.confirmation == "server":
        return declined(payment, attempt, seen, now)
    ended = end_attempt(attempt, AttemptState.DECLINED, code=seen.code, charge_id=seen.charge_id)
    if not ended or seen.charge_id in {None, payment.charge_id}:
        return None
    # The payer may try again with another card; the next decline is told from this one by its charge.
    number = payment.attempt_count + 1
    begun = open_attempt(payment.tenant_id, payment.id, number, payment.method, now)
    return Decision(replace(payment, attempt_count=number, charge_id=seen.charge_id), attempts=(*ended, begun))


def _seen_challenged(payment: Payment, attempt: Attempt | None, seen: Succeeded, now: datetime) -> Decision | None:
    match seen.status:
        case IntentStatus.AUTHORIZED:
            whole = seen.amount_capturable_minor == payment.amount_minor
            return authorized(payment, attempt, seen, now) if whole else None
        case IntentStatus.CAPTURED:
            return taken_unheld(payment, attempt, seen, now) if seen.amount_received_minor > 0 else None
        case IntentStatus.CANCELED:
            return work(*release(payment), now, attempts=end_attempt(attempt, AttemptState.ABANDONED))
        case IntentStatus.NEEDS_METHOD | IntentStatus.NEEDS_CONFIRMATION | IntentStatus.NEEDS_ACTION | IntentStatus.PROCESSING:
            return None


def _seen_held(payment: Payment, seen: Succeeded, now: datetime) -> Decision | None:
    match seen.status:
        case IntentStatus.AUTHORIZED:
            if payment.captured_minor < seen.amount_received_minor:
                return taken(payment, seen, now)
            later = seen.expires_at is not None and seen.expires_at != payment.expires_at
            return work(replace(payment, expires_at=seen.expires_at), (), now) if later else None
        case IntentStatus.CAPTURED:
            return taken(payment, seen, now) if seen.amount_received_minor > 0 else None
        case IntentStatus.CANCELED:
            return lapsed(payment, now)
        case IntentStatus.NEEDS_METHOD | IntentStatus.NEEDS_CONFIRMATION | IntentStatus.NEEDS_ACTION | IntentStatus.PROCESSING:
            return None


def _seen_after_all(payment: Payment, seen: Succeeded, now: datetime) -> Decision | None:
    """Money on a payment that was declined, which its payer must have brought about past us: never an order's."""
    match seen.status:
        case IntentStatus.AUTHORIZED:
            if payment.authorized_minor > 0 or seen.amount_capturable_minor == 0:
                return None  # it was let go of before: this is an old sight of it
            return work(move(replace(payment, authorized_minor=seen.amount_capturable_minor), S.VOIDING), (), now)
        case IntentStatus.CAPTURED:
            return taken(payment, seen, now) if seen.amount_received_minor > 0 else None
        case (
            IntentStatus.NEEDS_METHOD
            | IntentStatus.NEEDS_CONFIRMATION
            | IntentStatus.NEEDS_ACTION
            | IntentStatus.PROCESSING
            | IntentStatus.CANCELED
        ):
            return None
