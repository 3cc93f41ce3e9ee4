"""Provider operations: one intention towards the provider, recorded with its key before anything is sent.

Here is decided how long it belongs to whom, when it is looked into again, and what an answer is worth.

Four numbers, each with its own word everywhere: a payment attempt has a `number`; of the operations of one kind each has its
`ordinal`; the same operation asked again under its next key is its next `attempt` (`operation_attempt`, wherever an
operation is not at hand to say whose); and under one key it is taken up in any number of `tries`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, assert_never
from uuid import UUID, uuid5

from libs.common.decision import Aggregate
from services.payments.domain.provider.ladder import WAITS, wait_after
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

CALL_SECONDS = 10
"""How long one call to the provider may take."""
PLANNED_LEASE = timedelta(seconds=15)
"""How long the process that planned an operation has it for itself: short, so that a crash is soon made good."""
NO_LEASE = timedelta(0)
"""The same where that process makes no calls: whoever does may take it up at once."""
CLAIMED_LEASE = timedelta(seconds=30)
"""How long one that was claimed belongs to who claimed it: time to send it again, and then to read what the provider has."""
KEY_LIFETIME = timedelta(hours=20)
"""How long a key may be sent again: the provider may forget one after 24 hours, and would then act a second time."""
MAX_THROTTLED_SECONDS = 60.0
SURE_AFTER = 2
"""So many unknown outcomes before a stored failure is believed of a call that nothing but its key keeps from repeating."""

SPENT_KEY = "spent-key"
"""Under its key the provider will never do anything more, and what was asked did not happen: ask under the next one."""
DID_NOT_HAPPEN = "did-not-happen"
"""A person said so, and the provider's object does not contradict."""
NOT_FOUND = "not-found"
OPERATIONS_DUE = "operations-due"
"""What is called out when a process that makes no calls has planned one, or a person wants one looked into."""


class OperationKind(StrEnum):
    """What the provider is asked to do with its object."""

    CREATE = "create"
    CONFIRM = "confirm"
    CAPTURE = "capture"
    CANCEL = "cancel"
    REFUND = "refund"


class OperationState(StrEnum):
    """Whether it is known what came of it."""

    SENDING = "sending"
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    DECLINED = "declined"
    REJECTED = "rejected"


OPEN = frozenset({OperationState.SENDING, OperationState.UNKNOWN})


class Verdict(StrEnum):
    """What a person may say of an outcome that nobody knows."""

    READ_AGAIN = "read-again"
    DID_NOT_HAPPEN = "did-not-happen"


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolution:
    """A person's word on an operation. It counts once the provider's object has been read and agrees."""

    verdict: Verdict
    reason: str
    by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation(Aggregate):
    """One thing asked of the provider. Whoever repeats it says the same thing under the same key."""

    id: UUID
    payment_id: UUID
    refund_id: UUID | None = None
    """Of a refund: which one."""
    kind: OperationKind
    ordinal: int = 1
    """Which one of its kind: of a confirm or a cancel, the number of the payment attempt; of a capture, which capture."""
    attempt: int
    """Which of its keys it goes under, and no payment attempt. Rises only after a definite failure that is to be tried again."""
    idempotency_key: str
    request: dict[str, Any]
    """The exact parameters of the call, the same for every try."""
    total_minor: int | None = None
    """Of a capture: what the provider will have taken of the payment in all, once it has had its effect."""
    state: OperationState
    tries: int
    """How often somebody took it up; an outcome counts only for the try it was obtained in."""
    unknown_count: int = 0
    """How often its outcome was unknown."""
    first_send_at: datetime
    due_at: datetime | None
    """Until then it is whoever's took it up last; afterwards anybody's. None: it is over."""
    outcome: dict[str, Any] | None = None
    resolution: Resolution | None = None
    traceparent: str | None = None

    @property
    def news(self) -> Iterable[str]:
        """What those who make calls wait for."""
        return () if self.due_at is None else (OPERATIONS_DUE,)

    @property
    def intent_id(self) -> str | None:
        """The provider's object, once one is known."""
        return self.request.get("intent_id")

    @property
    def is_final(self) -> bool:
        """Of a capture: whether it lets go of what it does not take."""
        return bool(self.request.get("final", True))

    @property
    def awaits_person(self) -> bool:
        """Whether the ladder has ended, and it is in the queue of what a person must look into."""
        return self.state is OperationState.UNKNOWN and self.unknown_count > len(WAITS)

    def may_send(self, now: datetime) -> bool:
        """Whether the provider still remembers the key for certain, and nobody has said that it shall not be sent."""
        return not self.is_ruled_out and now - self.first_send_at < KEY_LIFETIME

    @property
    def is_ruled_out(self) -> bool:
        """Whether a person has said that it did not happen: then it is only read, to see whether that can be."""
        return self.resolution is not None and self.resolution.verdict is Verdict.DID_NOT_HAPPEN

    def is_held(self, now: datetime) -> bool:
        """Whether there is time left for a whole call before somebody else may take it up."""
        return self.due_at is not None and now + timedelta(seconds=CALL_SECONDS) <= self.due_at


def operation_id(payment_id: UUID, kind: OperationKind, ordinal: int, operation_attempt: int) -> UUID:
    """The same for the same intention, so that a lost row comes back under the same key."""
    return uuid5(payment_id, f"{kind}:{operation_attempt}" if ordinal == 1 else f"{kind}:{ordinal}:{operation_attempt}")


def idempotency_key(operation: UUID) -> str:
    """What the provider knows the operation by."""
    return f"cartwright-{operation}"


def following(operation: Operation, outcome: Outcome) -> Operation | None:
    """The confirmation that is sent as soon as its create has been answered, within the same lease. None: nothing is.

    A recorded create plans both calls: the key and the parameters of the second follow from its row and the object's id,
    so whoever repeats the first one, after a crash, repeats the second one under the same key too. What was created is to
    be as it was asked for, and untouched; anything else is recorded first.
    """
    asked = operation.request
    if operation.kind is not OperationKind.CREATE or asked.get("confirmation") != "server" or not isinstance(outcome, Succeeded):
        return None
    is_as_asked = outcome.amount_minor == asked["amount_minor"] and outcome.currency.upper() == asked["currency"]
    if outcome.status is not IntentStatus.NEEDS_CONFIRMATION or not is_as_asked:
        return None
    identity = operation_id(operation.payment_id, OperationKind.CONFIRM, 1, 1)
    return replace(
        operation,
        id=identity,
        kind=OperationKind.CONFIRM,
        attempt=1,
        idempotency_key=idempotency_key(identity),
        request=confirmation(outcome.intent_id, asked["method"]),
        tries=1,
        unknown_count=0,
        resolution=None,
    )


def confirmation(intent_id: str | None, method: str) -> dict[str, Any]:
    """The parameters of putting a method to its issuer."""
    return {"intent_id": intent_id, "method": method}


# --- Where the provider's object stands ---------------------------------------------------------------------------


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
            return Unknown(f"{name_of(outcome)}, and could not be read: {name_of(read)}")


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
            return outcome if as_asked else Unknown("the provider's amounts are not the payment's")
        case SeenRefund():
            return outcome if as_asked else Unknown("the provider's refund is not this one")
        case Declined() | Rejected():
            # A hold that the provider will not release is still a hold.
            stands = operation.kind is OperationKind.CANCEL and outcome.code not in {SPENT_KEY, DID_NOT_HAPPEN}
            return Unknown(f"cancel refused: {outcome.code}") if stands else outcome
        case Unknown() | Throttled():
            return outcome


def counts(operation: Operation, tries: int) -> bool:
    """Whether an outcome of this try still says anything: not if the operation is over, or in other hands."""
    return operation.state in OPEN and operation.tries == tries


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
            seconds = max(outcome.retry_after or 0.0, 2.0 ** min(operation.tries - 1, 5))
            return replace(operation, due_at=now + timedelta(seconds=min(seconds, MAX_THROTTLED_SECONDS)))
        case _:
            assert_never(outcome)


def _over(operation: Operation, state: OperationState) -> Operation:
    return replace(operation, state=state, due_at=None)


def rotated(operation: Operation, now: datetime) -> Operation:
    """The same intention under the next key."""
    identity = operation_id(operation.payment_id, operation.kind, operation.ordinal, operation.attempt + 1)
    return replace(
        operation,
        version=0,
        sequence=0,
        id=identity,
        attempt=operation.attempt + 1,
        idempotency_key=idempotency_key(identity),
        state=OperationState.SENDING,
        tries=1,
        unknown_count=0,
        first_send_at=now,
        due_at=now + PLANNED_LEASE,
        outcome=None,
        resolution=None,
    )


def resolve(operation: Operation, resolution: Resolution, now: datetime) -> Operation | None:
    """Have an unknown outcome looked into at once, with what a person says of it. None: there is nothing to resolve."""
    if operation.state is not OperationState.UNKNOWN:
        return None
    return replace(operation, resolution=resolution, due_at=now)


def hurry(operation: Operation, now: datetime) -> Operation | None:
    """Have an unknown outcome looked into now, for the provider has just spoken of its object. None: nothing to hurry."""
    if operation.state is not OperationState.UNKNOWN or operation.due_at is None or operation.due_at <= now:
        return None
    return replace(operation, due_at=now)
