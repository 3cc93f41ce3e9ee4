"""What an answer is worth: where the provider's object stands, and what that makes of an operation. Pure.

An outcome that nobody knows comes to an end by what is read; where reading alone will never bring it there, `obstacle` says
what is in the way, so that whoever is asked to look again can say so too.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

from services.payments.domain.provider.ladder import wait_after
from services.payments.domain.provider.operation import (
    DID_NOT_HAPPEN,
    NOT_FOUND,
    SPENT_KEY,
    SURE_AFTER,
    Operation,
    OperationKind,
    OperationState,
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
    name_of,
    summary_of,
)

MAX_THROTTLED_SECONDS = 60.0


def achieved(operation: Operation, seen: Succeeded) -> bool:
    """Whether the provider's payment is as the operation wants it."""
    match operation.kind:
        case OperationKind.CREATE:
            # Whatever became of it since: it is there, and its id is what creating it is for.
            return seen.status is not IntentStatus.CANCELED
        case OperationKind.CONFIRM:
            return seen.status in {IntentStatus.AUTHORIZED, IntentStatus.NEEDS_ACTION, IntentStatus.CAPTURED}
        case OperationKind.CAPTURE:
            ended = {IntentStatus.CAPTURED} if operation.is_final else {IntentStatus.CAPTURED, IntentStatus.AUTHORIZED}
            return seen.status in ended and seen.amount_received_minor >= (operation.total_minor or 0)
        case OperationKind.CANCEL:
            return seen.status is IntentStatus.CANCELED
        case OperationKind.REFUND:
            return False


def foreclosed(operation: Operation, seen: Succeeded) -> bool:
    """Whether the provider's payment has come to an end in which the operation can have no effect any more."""
    match operation.kind:
        case OperationKind.CREATE | OperationKind.CONFIRM:
            return seen.status is IntentStatus.CANCELED
        case OperationKind.CAPTURE:
            # Canceled, or ended with less than was asked for: by its own expiry after a part, or by somebody else.
            return seen.status in {IntentStatus.CANCELED, IntentStatus.CAPTURED} and not achieved(operation, seen)
        case OperationKind.CANCEL:
            return seen.status is IntentStatus.CAPTURED
        case OperationKind.REFUND:
            return False


def wants_reading(operation: Operation, outcome: Outcome) -> bool:
    """Whether the provider's object must be read before anything is concluded from this answer.

    A refusal, too, says nothing of where the object stands: an earlier try may have moved it. Of a first try that was
    to make the object there is nothing to read yet: it is sent again first.
    """
    match outcome:
        case Succeeded():
            return not achieved(operation, outcome)
        case SeenRefund() | Throttled():
            return False
        case Declined():
            return operation.kind is not OperationKind.CONFIRM
        case Rejected() | Unknown():
            makes_it = operation.kind in {OperationKind.CREATE, OperationKind.REFUND}
            return not makes_it or operation.tries > 1 or (isinstance(outcome, Unknown) and outcome.stored)


def conclude(operation: Operation, outcome: Outcome, read: Outcome) -> Outcome:
    """What an answer and a later reading of the object come to. A reading that says nothing leaves it unknown."""
    match read:
        case Succeeded():
            if achieved(operation, read) or foreclosed(operation, read):
                return read
            return Unknown("processing") if read.status is IntentStatus.PROCESSING else _without_effect(operation, outcome)
        case SeenRefund():
            return read
        case Declined():
            declined = operation.kind in {OperationKind.CREATE, OperationKind.CONFIRM}
            return read if declined else _without_effect(operation, outcome)
        case Rejected() if read.code == NOT_FOUND:
            return _not_found(operation, outcome)
        case Rejected() | Unknown() | Throttled():
            why = read.reason if isinstance(read, Unknown) else name_of(read)
            return Unknown(f"{name_of(outcome)}, and could not be read: {why}")


def _without_effect(operation: Operation, outcome: Outcome) -> Outcome:
    """What an answer is worth when the object is there and shows nothing of what was asked."""
    if operation.is_ruled_out:
        stands = operation.kind is OperationKind.CANCEL
        return Unknown("the hold stands") if stands else Rejected(DID_NOT_HAPPEN, "a person said so")
    if isinstance(outcome, Unknown) and outcome.stored and _is_safe_to_repeat(operation):
        return Rejected(SPENT_KEY, outcome.reason)
    return outcome


def _not_found(operation: Operation, outcome: Outcome) -> Outcome:
    """What an answer is worth when there is no object. One that was there and is not any more is for a person."""
    if operation.is_ruled_out:
        return Rejected(DID_NOT_HAPPEN, "a person said so")
    if operation.kind in {OperationKind.CREATE, OperationKind.REFUND}:
        return _without_effect(operation, outcome)
    return Unknown(f"{name_of(outcome)}, and its object is not found")


def _is_safe_to_repeat(operation: Operation) -> bool:
    """Whether a second effect is refused by the state of the provider's object, or the first has had time enough to show."""
    match operation.kind:
        case OperationKind.CREATE | OperationKind.CONFIRM | OperationKind.CANCEL:
            return True
        case OperationKind.CAPTURE:
            return operation.is_final or operation.unknown_count >= SURE_AFTER
        case OperationKind.REFUND:
            return operation.unknown_count >= SURE_AFTER


def judge(operation: Operation, outcome: Outcome, *, as_asked: bool) -> Outcome:
    """Take nothing for an end that is none. `as_asked`: the amounts and the currency are those of the payment."""
    match outcome:
        case Succeeded():
            if not achieved(operation, outcome) and not foreclosed(operation, outcome):
                return Unknown(f"the provider's payment is {outcome.status}")
            return outcome if as_asked else _of_another(operation, "the provider's amounts are not the payment's")
        case SeenRefund():
            return outcome if as_asked else _of_another(operation, "the provider's refund is not this one")
        case Declined() | Rejected():
            # A hold that the provider will not release is still a hold.
            stands = operation.kind is OperationKind.CANCEL and outcome.code not in {SPENT_KEY, DID_NOT_HAPPEN}
            return Unknown(f"cancel refused: {outcome.code}") if stands else outcome
        case Unknown() | Throttled():
            return outcome


def _of_another(operation: Operation, reason: str) -> Outcome:
    """What stands there is not what was asked for, and decides nothing by itself: only with the word of a person."""
    return Rejected(DID_NOT_HAPPEN, "a person said so") if operation.is_ruled_out else Unknown(reason)


class Obstacle(StrEnum):
    """Why a look at the provider will not bring an outcome to its end."""

    UNREADABLE = "provider-unavailable"
    PROCESSING = "provider-processing"
    ANOTHERS = "provider-differs"
    ABSENT = "not-at-provider"
    HOLD_STANDS = "hold-stands"


REMEDIES: dict[Obstacle, str] = {
    Obstacle.UNREADABLE: "the provider cannot be read just now, and nothing counts before it was: ask again later",
    Obstacle.PROCESSING: "the provider is still at work on it: ask again when it says what came of it",
    Obstacle.ANOTHERS: "what the provider has is not what was asked for, in its amount or its currency: mend it there (cancel or "
    "refund it), or say did-not-happen, and reconciliation will show the difference until it is closed",
    Obstacle.ABSENT: "the provider has no such object any more: say did-not-happen if nothing of it was taken",
    Obstacle.HOLD_STANDS: "the provider still holds the money, whatever anybody says: cancel it there, or say read-again",
}
"""What to do about each, for whoever asked."""


def obstacle(operation: Operation, read: Outcome, *, as_asked: bool) -> Obstacle | None:
    """What keeps this operation, with what a person says of it, from an end, if its object stands as it was just read.

    None: a look may bring it there, if only by sending again what has shown no effect.
    """
    match read:
        case Succeeded() if achieved(operation, read) or foreclosed(operation, read):
            return None if as_asked or operation.is_ruled_out else Obstacle.ANOTHERS
        case SeenRefund():
            return None if as_asked or operation.is_ruled_out else Obstacle.ANOTHERS
        case Succeeded(status=IntentStatus.PROCESSING):
            return Obstacle.PROCESSING
        case Succeeded() | Declined():
            return Obstacle.HOLD_STANDS if operation.is_ruled_out and operation.kind is OperationKind.CANCEL else None
        case Rejected() if read.code == NOT_FOUND:
            makes_it = operation.kind in {OperationKind.CREATE, OperationKind.REFUND}
            return None if makes_it or operation.is_ruled_out else Obstacle.ABSENT
        case Rejected() | Unknown() | Throttled():
            return Obstacle.UNREADABLE


# --- What becomes of the operation --------------------------------------------------------------------------------


def settle(operation: Operation, outcome: Outcome, now: datetime) -> Operation:
    """The operation after a judged outcome: over, or due again."""
    operation = replace(operation, outcome=summary_of(outcome))
    match outcome:
        case Succeeded():
            done = achieved(operation, outcome)
            return _over(operation, OperationState.SUCCEEDED if done else OperationState.REJECTED)
        case SeenRefund():
            return _over(operation, OperationState.SUCCEEDED)
        case Declined():
            return _over(operation, OperationState.DECLINED)
        case Rejected():
            return _over(operation, OperationState.REJECTED)
        case Unknown():
            count = operation.unknown_count + 1
            # What a person said was looked into, and the provider does not bear it out.
            unknown = replace(operation, unknown_count=count, resolution=None)
            return replace(unknown, state=OperationState.UNKNOWN, due_at=now + wait_after(count))
        case Throttled():
            # In this order: what they ask for may be no number.
            seconds = max(2.0 ** min(operation.tries - 1, 5), outcome.retry_after or 0.0)
            return replace(operation, due_at=now + timedelta(seconds=min(seconds, MAX_THROTTLED_SECONDS)))
        case _:
            assert_never(outcome)


def _over(operation: Operation, state: OperationState) -> Operation:
    return replace(operation, state=state, due_at=None)
