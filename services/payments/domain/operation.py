"""Provider operations: one intention towards the provider, recorded with its key before anything is sent.

Here is decided how long it belongs to whom, when it is looked into again, and what an answer is worth.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, assert_never
from uuid import UUID, uuid5

from libs.common.messaging.decision import Aggregate
from services.payments.domain.outcome import (
    Declined,
    IntentStatus,
    Outcome,
    Rejected,
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
CLAIMED_LEASE = timedelta(seconds=30)
"""The same for one that was claimed: time to send it again, and then to read what the provider has."""
KEY_LIFETIME = timedelta(hours=20)
"""How long a key may be sent again: the provider may forget one after 24 hours, and would then act a second time."""
UNKNOWN_WAITS = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 3_600, 21_600))
"""When an unknown outcome is looked into again, by try; the last wait repeats until a person steps in."""
MAX_THROTTLED_SECONDS = 60.0


class OperationKind(StrEnum):
    """What the provider is asked to do with its object."""

    CREATE = "create"
    CONFIRM = "confirm"
    CAPTURE = "capture"
    CANCEL = "cancel"


class OperationState(StrEnum):
    """Whether it is known what came of it."""

    SENDING = "sending"
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    DECLINED = "declined"
    REJECTED = "rejected"


OPEN = frozenset({OperationState.SENDING, OperationState.UNKNOWN})

ACHIEVED: dict[OperationKind, frozenset[IntentStatus]] = {
    OperationKind.CREATE: frozenset({IntentStatus.NEEDS_CONFIRMATION}),
    OperationKind.CONFIRM: frozenset({IntentStatus.AUTHORIZED, IntentStatus.NEEDS_ACTION}),
    OperationKind.CAPTURE: frozenset({IntentStatus.CAPTURED}),
    OperationKind.CANCEL: frozenset({IntentStatus.CANCELED}),
}
"""Where the provider's object stands once the operation has had its effect."""

FORECLOSED: dict[OperationKind, frozenset[IntentStatus]] = {
    OperationKind.CREATE: frozenset(),
    OperationKind.CONFIRM: frozenset({IntentStatus.CANCELED}),
    OperationKind.CAPTURE: frozenset({IntentStatus.CANCELED}),
    OperationKind.CANCEL: frozenset({IntentStatus.CAPTURED}),
}
"""Where it stands when the operation can never have one any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation(Aggregate):
    """One thing asked of the provider. Whoever repeats it says the same thing under the same key."""

    id: UUID
    payment_id: UUID
    kind: OperationKind
    attempt: int
    """Rises, and the key with it, only after a definite failure that is to be tried again."""
    idempotency_key: str
    request: dict[str, Any]
    """The exact parameters of the call, the same for every try."""
    state: OperationState
    tries: int
    """How often somebody took it up; an outcome counts only for the try it was obtained in."""
    first_send_at: datetime
    due_at: datetime | None
    """Until then it is whoever's took it up last; afterwards anybody's. None: it is over."""
    outcome: dict[str, Any] | None = None
    traceparent: str | None = None

    @property
    def intent_id(self) -> str | None:
        """The provider's object, once one is known."""
        return self.request.get("intent_id")

    def may_send(self, now: datetime) -> bool:
        """Whether the provider still remembers the key for certain."""
        return now - self.first_send_at < KEY_LIFETIME

    def is_held(self, now: datetime) -> bool:
        """Whether there is time left for a whole call before somebody else may take it up."""
        return self.due_at is not None and now + timedelta(seconds=CALL_SECONDS) <= self.due_at


def operation_id(payment_id: UUID, kind: OperationKind, attempt: int) -> UUID:
    """The same for the same intention, so that a lost row comes back under the same key."""
    return uuid5(payment_id, f"{kind}:{attempt}")


def idempotency_key(operation: UUID) -> str:
    """What the provider knows the operation by."""
    return f"cartwright-{operation}"


def wants_reading(operation: Operation, outcome: Outcome) -> bool:
    """Whether the provider's object must be read before anything is concluded from this answer.

    A refusal, too, says nothing of where the object stands: an earlier try may have moved it.
    """
    if operation.intent_id is None:
        return False
    match outcome:
        case Succeeded():
            return outcome.status not in ACHIEVED[operation.kind]
        case Declined():
            return operation.kind is not OperationKind.CONFIRM
        case Rejected() | Unknown():
            return True
        case Throttled():
            return False


def conclude(kind: OperationKind, outcome: Outcome, read: Outcome) -> Outcome:
    """What an answer and a later reading of the object come to. A reading that says nothing leaves it unknown."""
    match read:
        case Succeeded():
            if read.status in ACHIEVED[kind] | FORECLOSED[kind]:
                return read
            return Unknown("processing") if read.status is IntentStatus.PROCESSING else outcome
        case Declined():
            return read if kind is OperationKind.CONFIRM else outcome
        case Rejected() | Unknown() | Throttled():
            return Unknown(f"{name_of(outcome)}, and could not be read: {name_of(read)}")


def judge(kind: OperationKind, outcome: Outcome, *, as_asked: bool) -> Outcome:
    """Take nothing for an end that is none. `as_asked`: the amounts and the currency are those of the payment."""
    match outcome:
        case Succeeded():
            if outcome.status not in ACHIEVED[kind] | FORECLOSED[kind]:
                return Unknown(f"the provider's payment is {outcome.status}")
            return outcome if as_asked else Unknown("the provider's amounts are not the payment's")
        case Declined() | Rejected():
            # A hold that the provider will not release is still a hold.
            return Unknown(f"cancel refused: {outcome.code}") if kind is OperationKind.CANCEL else outcome
        case Unknown() | Throttled():
            return outcome


def settle(operation: Operation, outcome: Outcome, now: datetime) -> Operation:
    """The operation after a judged outcome: over, or due again."""
    operation = replace(operation, outcome=summary_of(outcome))
    match outcome:
        case Succeeded():
            achieved = outcome.status in ACHIEVED[operation.kind]
            return _over(operation, OperationState.SUCCEEDED if achieved else OperationState.REJECTED)
        case Declined():
            return _over(operation, OperationState.DECLINED)
        case Rejected():
            return _over(operation, OperationState.REJECTED)
        case Unknown():
            wait = UNKNOWN_WAITS[min(operation.tries, len(UNKNOWN_WAITS)) - 1]
            return replace(operation, state=OperationState.UNKNOWN, due_at=now + wait)
        case Throttled():
            seconds = max(outcome.retry_after or 0.0, 2.0 ** min(operation.tries - 1, 5))
            return replace(operation, due_at=now + timedelta(seconds=min(seconds, MAX_THROTTLED_SECONDS)))
        case _:
            assert_never(outcome)


def _over(operation: Operation, state: OperationState) -> Operation:
    return replace(operation, state=state, due_at=None)
