"""Notices of the provider: hints that something moved. Here is decided what one is worth before anything is read again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from services.payments.domain.outcome import IntentStatus, RefundStatus
from services.payments.domain.payment import OVER, WORKING, Payment, PaymentState
from services.payments.domain.refund import STANDS, Refund
from services.payments.domain.refund import TRANSITIONS as REFUND_TRANSITIONS

TOLERANCE = timedelta(seconds=300)
"""How far from now a notice may say that it was signed, to either side."""
CALL_UNDER_WAY = timedelta(seconds=5)
"""When a notice is looked at again that may only tell what a call of ours is about to tell."""
WAITS = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 3_600, 21_600))
"""When a notice is taken up again that could not be settled, by attempt; the last wait repeats."""


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
    tenant_id: str | None = field(default=None)
    """As the object's metadata has it. It was checked when the notice came, and is not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A stored notice, taken up for the `attempts`th time."""

    tenant_id: UUID
    id: str
    subject: Subject
    object_id: str
    intent_id: str | None
    payment_id: UUID | None
    status: str | None
    amount_minor: int | None
    attempts: int


def refusal(notice: Notice, tenant_id: UUID, *, livemode: bool, account: str | None, on_behalf: bool) -> str | None:
    """Why a notice that is truly the provider's is still not for this tenant. None: it is.

    `account` is the tenant's own, if it is known. Notices of an account say whose they are only when they reach the
    platform on its behalf, and then they must.
    """
    if notice.livemode is not livemode:
        return "a test-mode event for a live account" if livemode else "a live event for a test account"
    if notice.account != account and (on_behalf or notice.account is not None):
        return "an event of another account"
    if notice.tenant_id is not None and notice.tenant_id != str(tenant_id):
        return "an event about another tenant's object"
    return None


S = PaymentState
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


def worth_of_intent(notice: Taken, payment: Payment) -> Worth:
    """Whether the provider's payment should be read again, and now. A status that we have no word for tells nothing."""
    took_more = (notice.amount_minor or 0) > payment.captured_minor
    if not (notice.status is None or took_more or payment.state in NEWS[IntentStatus(notice.status)]):
        return Worth.NOTHING
    return Worth.LATER if payment.state in WORKING else Worth.READ


def worth_of_refund(notice: Taken, refund: Refund | None) -> Worth:
    """The same for a refund; one that is not known by its provider's name is being made, or was made elsewhere."""
    if refund is None or notice.status is None:
        return Worth.READ
    if STANDS[RefundStatus(notice.status)] not in REFUND_TRANSITIONS[refund.state]:
        return Worth.NOTHING
    return Worth.READ


def wait_after(attempts: int) -> timedelta:
    """When a notice that could not be settled is taken up again."""
    return WAITS[min(attempts, len(WAITS)) - 1]
