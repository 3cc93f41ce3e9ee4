"""Notices of the provider: hints that something moved, what is kept of them, and whose they are.

What one is worth before anything is read again, its machine decides (`payment/observing.py`, `money/refund_recording.py`).
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

TOLERANCE = timedelta(seconds=300)
"""How far from now a notice may say that it was signed, to either side."""
CALL_UNDER_WAY = timedelta(seconds=5)
"""When a notice is looked at again that may only tell what a call of ours is about to tell."""


class Subject(StrEnum):
    """What a notice is about."""

    INTENT = "intent"
    REFUND = "refund"
    DISPUTE = "dispute"
    OTHER = "other"


class Result(StrEnum):
    """How a notice was settled."""

    OBSERVED = "observed"
    """The object was read, and what it says was taken in."""
    NOTHING_NEW = "nothing-new"
    NOT_OURS = "not-ours"
    """It is about an object of this account that no payment of this tenant knows."""
    OF_NO_INTEREST = "of-no-interest"
    GONE = "gone"
    """The provider has no such object."""


class Worth(StrEnum):
    """What is to be done about a notice."""

    NOTHING = "nothing"
    LATER = "later"
    READ = "read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What is kept of one event of the provider: who and what it is about, and how that stood. No secret, no person."""

    id: str
    type: str
    subject: Subject
    object_id: str
    intent_id: str | None
    payment_id: UUID | None
    """As the object's metadata has it, which we gave it."""
    status: str | None
    """How the object stood when the event was made, in our words: an `IntentStatus`, a `RefundStatus`."""
    amount_minor: int | None
    """What an intent had taken by then."""
    livemode: bool
    account: str | None
    occurred_at: datetime
    tenant_id: UUID | None = field(default=None)
    """As the object's metadata has it; `NIL` where it names what is no tenant of ours. It is not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenNotice:
    """A stored notice, taken up in its `tries`th try."""

    tenant_id: UUID
    id: str
    subject: Subject
    object_id: str
    intent_id: str | None
    payment_id: UUID | None
    status: str | None
    amount_minor: int | None
    tries: int


def refusal(notice: Notice, tenant_id: UUID, *, livemode: bool, account: str | None, on_behalf: bool) -> str | None:
    """Why a notice that is truly the provider's is still not for this tenant. None: it is.

    `account` is the tenant's own, if it is known. Notices of an account say whose they are only when they reach the
    platform on its behalf, and then they must.
    """
    if notice.tenant_id not in {None, tenant_id}:
        return "an event about another tenant's object"
    if notice.account != account and (on_behalf or notice.account is not None):
        return "an event of another account"
    if notice.livemode is not livemode:
        return "a test-mode event for a live account" if livemode else "a live event for a test account"
    return None
