"""Provider operations: one intention towards the provider, recorded with its key before anything is sent.

Here is decided how long it belongs to whom and when it is looked into again; what an answer is worth, in `concluding.py`.

Four numbers, each with its own word everywhere: a payment attempt has a `number`; of the operations of one kind each has its
`ordinal`; the same operation asked again under its next key is its next `attempt` (`operation_attempt`, wherever an
operation is not at hand to say whose); and under one key it is taken up in any number of `tries`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid5

from libs.common.decision import Aggregate
from services.payments.domain.provider.ladder import WAITS
from services.payments.domain.provider.outcome import IntentStatus, Outcome, Succeeded

CALL_SECONDS = 10
"""How long one call to the provider may take."""
PLANNED_LEASE = timedelta(seconds=15)
"""How long the process that planned an operation has it for itself: short, so that a crash is soon made good."""
NO_LEASE = timedelta(0)
"""The same where that process makes no calls: whoever does may take it up at once."""
CLAIMED_LEASE = timedelta(seconds=30)
"""How long one that was claimed belongs to who claimed it: time to send it again, and then to read what the provider has."""
RETURN_URL = "return_url"
"""The name under which a create's row keeps where its confirmation leads back to."""
KEY_LIFETIME = timedelta(hours=20)
"""How long a key may be sent again: the provider may forget one after 24 hours, and would then act a second time."""
SURE_AFTER = 4
"""So many unknown outcomes before a stored failure is believed of a call that nothing but its key keeps from repeating.

By the ladder twelve minutes: the provider may yet carry out what it has answered with a failure.
"""

SPENT_KEY = "spent-key"
"""Under its key the provider will never do anything more, and what was asked did not happen: ask under the next one."""
DID_NOT_HAPPEN = "did-not-happen"
"""A person said so, and the provider's object does not contradict."""
NOT_FOUND = "not-found"
NOT_WANTED = "not-wanted"
"""Its method was not put to the issuer, or not again: the checkout wants nothing held any more."""
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
        request=confirmation(outcome.intent_id, asked["method"], asked.get(RETURN_URL)),
        tries=1,
        unknown_count=0,
        resolution=None,
    )


def confirmation(intent_id: str | None, method: str, return_url: str | None) -> dict[str, Any]:
    """The parameters of putting a method to its issuer."""
    return {"intent_id": intent_id, "method": method, **({RETURN_URL: return_url} if return_url else {})}


def creation(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a create itself is sent: where the issuer leads back to is its confirmation's, which its row plans as well."""
    return {name: value for name, value in asked.items() if name != RETURN_URL}


def counts(operation: Operation, tries: int) -> bool:
    """Whether an outcome of this try still says anything: not if the operation is over, or in other hands."""
    return operation.state in OPEN and operation.tries == tries


# --- What becomes of the operation --------------------------------------------------------------------------------


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
