"""Payment attempts: a payer sets out to pay, with one method. A payment has at most one that is open."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid5

from libs.common.decision import Aggregate


class AttemptState(StrEnum):
    """What came of it."""

    OPEN = "open"
    SUCCEEDED = "succeeded"
    DECLINED = "declined"
    ABANDONED = "abandoned"


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt(Aggregate):
    """One method put to its issuer, by us or by the payer's browser (then nobody tells us which: `method` is empty)."""

    id: UUID
    payment_id: UUID
    number: int
    """Which one of its payment, from 1."""
    method: str
    state: AttemptState = AttemptState.OPEN
    decline_code: str | None = None
    charge_id: str | None = None
    """The provider's charge that ended it: the same decline, heard of again, is no other attempt's."""
    created_at: datetime


def attempt_id(payment_id: UUID, number: int) -> UUID:
    """The same for the same attempt, whoever names it."""
    return uuid5(payment_id, f"attempt:{number}")


def open_attempt(tenant_id: UUID, payment_id: UUID, number: int, method: str, now: datetime) -> Attempt:
    """A new attempt."""
    identity = attempt_id(payment_id, number)
    return Attempt(tenant_id=tenant_id, id=identity, payment_id=payment_id, number=number, method=method, created_at=now)


def end_attempt(
    attempt: Attempt | None, state: AttemptState, *, code: str | None = None, charge_id: str | None = None
) -> tuple[Attempt, ...]:
    """The attempt as it ended; nothing if there is none that is open."""
    if attempt is None or attempt.state is not AttemptState.OPEN:
        return ()
    return (replace(attempt, state=state, decline_code=code, charge_id=charge_id),)
