"""What the provider's answers make of a payment. An answer counts once, for the try it was obtained in."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias

from libs.common.contracts import Event
from libs.common.contracts.payments import (
    PaymentActionRequired,
    PaymentAuthorized,
    PaymentCaptured,
    PaymentExpired,
    PaymentUnknown,
)
from libs.common.errors import ConflictError
from services.payments.domain.payment.attempt import Attempt, AttemptState, end_attempt, open_attempt
from services.payments.domain.payment.payment import Decision, Payment, PaymentState, S, Taken, decline, move, release
from services.payments.domain.payment.planning import awaiting, let_go, look_again, take, work
from services.payments.domain.provider.concluding import judge, settle
from services.payments.domain.provider.operation import (
    DID_NOT_HAPPEN,
    NOT_WANTED,
    SPENT_KEY,
    Operation,
    OperationKind,
    rotated,
)
from services.payments.domain.provider.outcome import (
    Declined,
    IntentStatus,
    Outcome,
    Rejected,
    SeenRefund,
    Succeeded,
    Throttled,
    Unknown,
)

PROVIDER_REJECTED = "provider-rejected"

DOING: dict[OperationKind, PaymentState] = {
    OperationKind.CREATE: S.AUTHORIZING,
    OperationKind.CONFIRM: S.AUTHORIZING,
    OperationKind.CAPTURE: S.CAPTURING,
    OperationKind.CANCEL: S.VOIDING,
}
"""The state in which a payment has an open operation of each kind."""
OF_AN_ATTEMPT = frozenset({OperationKind.CONFIRM, OperationKind.CANCEL})
"""The operations that end a payment attempt, whose number is their ordinal."""

Ending: TypeAlias = Succeeded | Declined | Rejected
"""An outcome that ends an operation on the provider's payment."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A decision upon an outcome, beside the operation that had it."""

    operation: Operation
    decision: Decision


def record(payment: Payment, operation: Operation, attempt: Attempt | None, outcome: Outcome, now: datetime) -> Recorded:
    """Decide upon the outcome of a try that counts; `attempt` is the payment attempt that the operation may end."""
    outcome = judge(operation, outcome, as_asked=is_as_asked(payment, operation, outcome))
    return Recorded(settle(operation, outcome, now), _follow(payment, operation, attempt, outcome, now))


def record_both(
    payment: Payment, operation: Operation, made: Succeeded, outcome: Outcome, now: datetime
) -> tuple[Operation, Recorded]:
    """Decide upon a create and upon the confirm that followed it at once; answers the create's operation apart.

    Whatever was asked of the payment meanwhile, its method has been put to the issuer: only what came of that decides.
    """
    begun = _attempt(replace(_known(payment, operation.kind), intent_id=made.intent_id, attempt_count=1), now)
    if begun.planned is None:
        raise ConflictError("nothing-followed", "nothing is confirmed for a payment that its payer confirms")
    recorded = record(begun.payment, begun.planned, begun.attempts[0], outcome, now)
    decision = replace(recorded.decision, attempts=recorded.decision.attempts or begun.attempts)
    return settle(operation, made, now), Recorded(recorded.operation, decision)


def is_whole(payment: Payment, seen: Succeeded) -> bool:
    """Whether the provider speaks of this payment's money, and of no more of it than there can be."""
    same = payment.intent_id in {None, seen.intent_id}
    there_is = seen.amount_capturable_minor + seen.amount_received_minor <= payment.amount_minor
    return same and there_is and seen.currency.upper() == payment.currency and seen.amount_minor == payment.amount_minor


def is_as_asked(payment: Payment, operation: Operation, outcome: Outcome) -> bool:
    """Whether the provider speaks of this payment's money, and of no more of it than there can be.

    It may have done more with it than this operation asked for: somebody else can ask too.
    """
    if not isinstance(outcome, Succeeded):
        return not isinstance(outcome, SeenRefund)
    taken_minor = outcome.amount_received_minor
    if outcome.status is IntentStatus.CANCELED and taken_minor <= payment.captured_minor:
        return payment.intent_id in {None, outcome.intent_id}  # nothing is held, whatever its amounts were
    match operation.kind:
        case OperationKind.CREATE:
            amounts = True
        case OperationKind.CONFIRM if outcome.status is IntentStatus.CAPTURED:
            amounts = taken_minor > 0
        case OperationKind.CONFIRM:
            amounts = outcome.status is not IntentStatus.AUTHORIZED or taken_minor + outcome.amount_capturable_minor > 0
        case OperationKind.CAPTURE:
            amounts = outcome.status is IntentStatus.CANCELED or taken_minor >= max(1, payment.captured_minor)
        case OperationKind.CANCEL:
            amounts = outcome.status is not IntentStatus.CAPTURED or 0 < taken_minor <= payment.amount_minor
        case OperationKind.REFUND:
            amounts = False
    return amounts and is_whole(payment, outcome)


def _follow(payment: Payment, operation: Operation, attempt: Attempt | None, outcome: Outcome, now: datetime) -> Decision:
    match outcome:
        case Throttled():
            return Decision(payment)
        case Unknown():
            if payment.state is S.UNKNOWN:
                return Decision(payment)
            unknown = PaymentUnknown(payment_id=payment.id, checkout_id=payment.checkout_id)
            return Decision(look_again(move(payment, S.UNKNOWN), now), (unknown,))
        case Rejected(code=code) if code == SPENT_KEY or (code == NOT_WANTED and not payment.is_unwanted):
            again = rotated(operation, now)
            return Decision(awaiting(_known(payment, operation.kind), again.id, again.attempt, now), (), again)
        case Succeeded() | Declined() | Rejected():
            return _end(_known(payment, operation.kind), operation.kind, attempt, outcome, now)
        case SeenRefund():
            raise ConflictError("not-a-refund", "a refund's outcome was recorded for an operation on the payment")


def _known(payment: Payment, kind: OperationKind) -> Payment:
    """Back to what it was doing, now that it is known what came of it."""
    return move(payment, DOING[kind]) if payment.state is S.UNKNOWN else payment


def _end(payment: Payment, kind: OperationKind, attempt: Attempt | None, ending: Ending, now: datetime) -> Decision:
    match kind:
        case OperationKind.CREATE:
            return _created(payment, ending, now)
        case OperationKind.CONFIRM:
            return _confirmed(payment, attempt, ending, now)
        case OperationKind.CAPTURE:
            return _captured(payment, ending, now)
        case OperationKind.CANCEL:
            return _canceled(payment, attempt, ending, now)
        case OperationKind.REFUND:
            raise ConflictError("not-a-payment", "a refund's operation was recorded for its payment")


# --- Authorizing ----------------------------------------------------------------------------------------------------


def _created(payment: Payment, ending: Ending, now: datetime) -> Decision:
    match ending:
        case Succeeded(status=IntentStatus.CANCELED):
            return work(*release(replace(payment, intent_id=ending.intent_id)), now)
        case Succeeded():
            return _made(replace(payment, intent_id=ending.intent_id), now)
        case Declined(intent_id=str(found)) if payment.confirmation == "client":
            # Found with a decline of a method that we did not choose: its payer may try another.
            return _made(replace(payment, intent_id=found), now)
        case Declined():
            return work(*decline(replace(payment, intent_id=ending.intent_id), ending.code), now)
        case Rejected():
            return work(*decline(payment, _why(ending)), now)


def _made(payment: Payment, now: datetime) -> Decision:
    """The provider's payment is there: let go of it, or go on."""
    if payment.is_unwanted:
        return work(move(payment, S.VOIDING), (), now)
    return _attempt(replace(payment, attempt_count=1), now)


def _attempt(payment: Payment, now: datetime) -> Decision:
    """Put the method to the issuer, or have the payer's browser do so."""
    begun = open_attempt(payment.tenant_id, payment.id, payment.attempt_count, payment.method, now)
    if payment.confirmation == "server":
        return work(payment, (), now, attempts=(begun,))
    return work(move(payment, S.REQUIRES_ACTION), (_action_required(payment),), now, attempts=(begun,))


def _action_required(payment: Payment) -> Event:
    return PaymentActionRequired(payment_id=payment.id, checkout_id=payment.checkout_id)


def _confirmed(payment: Payment, attempt: Attempt | None, ending: Ending, now: datetime) -> Decision:
    match ending:
        case Succeeded():
            return _put_to_issuer(payment, attempt, ending, now)
        case Declined():
            return declined(payment, attempt, ending, now)
        case Rejected(code=code) if code == NOT_WANTED:
            # An earlier try may yet have its effect there: canceling ends that too.
            return work(move(payment, S.VOIDING), (), now)
        case Rejected():
            return work(*decline(payment, _why(ending)), now, attempts=end_attempt(attempt, AttemptState.ABANDONED))


def _put_to_issuer(payment: Payment, attempt: Attempt | None, seen: Succeeded, now: datetime) -> Decision:
    if seen.status is IntentStatus.CANCELED:
        return work(*release(payment), now, attempts=end_attempt(attempt, AttemptState.ABANDONED))
    if seen.amount_received_minor > 0:
        return taken_unheld(payment, attempt, seen, now)
    if seen.status is IntentStatus.NEEDS_ACTION and not payment.is_unwanted:
        return work(move(payment, S.REQUIRES_ACTION), (_action_required(payment),), now)
    if seen.amount_capturable_minor == payment.amount_minor:
        return authorized(payment, attempt, seen, now)
    # Nobody wants it done, or less is held than an order of it costs.
    return work(move(payment, S.VOIDING), (), now)


def _why(rejected: Rejected) -> str:
    return DID_NOT_HAPPEN if rejected.code == DID_NOT_HAPPEN else PROVIDER_REJECTED


def declined(payment: Payment, attempt: Attempt | None, ending: Declined, now: datetime) -> Decision:
    """The issuer said no to the method we put to it."""
    ended = end_attempt(attempt, AttemptState.DECLINED, code=ending.code, charge_id=ending.charge_id)
    return work(*decline(payment, ending.code), now, attempts=ended)


def authorized(payment: Payment, attempt: Attempt | None, seen: Succeeded, now: datetime) -> Decision:
    """The money is held: said so, and taken or let go of at once if that was asked for meanwhile."""
    ended = end_attempt(attempt, AttemptState.SUCCEEDED, charge_id=seen.charge_id)
    held = replace(payment, authorized_minor=seen.amount_capturable_minor, expires_at=seen.expires_at, charge_id=seen.charge_id)
    if held.is_unwanted:
        return work(move(held, S.VOIDING), (), now, attempts=ended)
    return replace(_hold(move(held, S.AUTHORIZED), (money_held(held),), now), attempts=ended)


def money_held(payment: Payment) -> Event:
    """What is said of money that is held."""
    return PaymentAuthorized(
        payment_id=payment.id,
        checkout_id=payment.checkout_id,
        amount_minor=payment.authorized_minor,
        currency=payment.currency,
        expires_at=payment.expires_at,
    )


def _hold(held: Payment, events: tuple[Event, ...], now: datetime) -> Decision:
    """What is held and authorized: kept, taken or let go of."""
    if held.is_unwanted:
        return let_go(held, events, now)
    if held.requested_capture:
        return take(held, held.held_minor, final=True, now=now, events=events)
    return work(held, events, now)


# --- Capturing ------------------------------------------------------------------------------------------------------


def _captured(payment: Payment, ending: Ending, now: datetime) -> Decision:
    match ending:
        case Succeeded(status=IntentStatus.CANCELED):
            return lapsed(payment, now)
        case Succeeded():
            return taken(payment, ending, now)
        case Declined() | Rejected():
            refused = replace(payment, capturing_minor=0)
            if refused.requested_capture and refused.captured_minor == 0:
                # It will never be ours, so it must not stay held either.
                return work(move(refused, S.VOIDING), (), now)
            # Somebody asked for a part, and can be told that it was refused; what is held stays held.
            return _hold(replace(move(refused, S.AUTHORIZED), requested_capture=False), (), now)


def taken(payment: Payment, seen: Succeeded, now: datetime) -> Decision:
    """The provider has taken so much of it in all; the payment's end, unless the rest is still held."""
    amount_minor = max(0, seen.amount_received_minor - payment.captured_minor)
    after = replace(
        payment,
        captured_minor=payment.captured_minor + amount_minor,
        authorized_minor=max(payment.authorized_minor, seen.amount_received_minor),
        capturing_minor=0,
        charge_id=seen.charge_id or payment.charge_id,
    )
    events = (_money_taken(after, amount_minor),) if amount_minor else ()
    if seen.status is IntentStatus.CAPTURED:
        decision = work(move(after, S.CAPTURED), events, now)
    else:
        decision = _hold(after if after.state is S.AUTHORIZED else move(after, S.AUTHORIZED), events, now)
    reference = seen.transaction_id or after.charge_id or seen.intent_id
    return replace(decision, taken=Taken(amount_minor, seen.fee_minor, reference, seen.exchange))


def taken_unheld(payment: Payment, attempt: Attempt | None, seen: Succeeded, now: datetime) -> Decision:
    """Somebody took of it past us before we knew that it was held. Where all of it was, an order may come of it: that is said."""
    both_minor = seen.amount_capturable_minor + seen.amount_received_minor
    held = replace(payment, authorized_minor=both_minor, expires_at=seen.expires_at)
    decision = replace(taken(held, seen, now), attempts=end_attempt(attempt, AttemptState.SUCCEEDED, charge_id=seen.charge_id))
    if payment.is_unwanted or held.authorized_minor != payment.amount_minor:
        return decision
    return replace(decision, events=(money_held(decision.payment), *decision.events))


def _money_taken(payment: Payment, amount_minor: int) -> Event:
    return PaymentCaptured(
        payment_id=payment.id,
        checkout_id=payment.checkout_id,
        order_id=payment.order_id,
        amount_minor=amount_minor,
        captured_minor=payment.captured_minor,
    )


def lapsed(payment: Payment, now: datetime) -> Decision:
    """The provider let go of what was held. What was taken of it before stays taken."""
    payment = replace(payment, capturing_minor=0)
    if payment.captured_minor > 0:
        return work(move(payment, S.CAPTURED), (), now)
    expired = PaymentExpired(payment_id=payment.id, checkout_id=payment.checkout_id)
    return work(move(payment, S.EXPIRED), (expired,), now)


# --- Voiding --------------------------------------------------------------------------------------------------------


def _canceled(payment: Payment, attempt: Attempt | None, ending: Ending, now: datetime) -> Decision:
    match ending:
        case Succeeded(status=IntentStatus.CAPTURED):
            return replace(taken(payment, ending, now), attempts=end_attempt(attempt, AttemptState.SUCCEEDED))
        case Succeeded():
            return work(*release(payment), now, attempts=end_attempt(attempt, AttemptState.ABANDONED))
        case Rejected(code=code) if code == DID_NOT_HAPPEN:
            # The provider has no such object, and a person vouches that nothing is held.
            return work(*release(payment), now, attempts=end_attempt(attempt, AttemptState.ABANDONED))
        case Declined() | Rejected():
            # `judge` lets none through: a refused cancel decides nothing.
            raise ConflictError("hold-stands", f"the provider would not release it: {ending.code}")
