"""What waits for a person: payments, refunds, breaks and disputes that the machine will not end by itself. Pure.

Each says what it is, and what may be done about it, and what that would do; nothing is on this list that ends by itself
within minutes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


class ReviewKind(StrEnum):
    """Why something waits."""

    OUTCOME_UNKNOWN = "outcome-unknown"
    REFUND_FAILED = "refund-failed"
    MONEY_WITHOUT_ORDER = "money-without-order"
    BREAK_OPEN = "break-open"
    DISPUTE_WANTS_EVIDENCE = "dispute-wants-evidence"


K = ReviewKind
MEANINGS: Mapping[ReviewKind, str] = {
    K.OUTCOME_UNKNOWN: "the provider was asked, and several looks have not shown what came of it; it is looked at again",
    K.REFUND_FAILED: "a refund failed, perhaps after it had been told done: its buyer does not have the money",
    K.MONEY_WITHOUT_ORDER: "money was taken, no order is known to have it, and it has not gone back; checkout was asked",
    K.BREAK_OPEN: "our books and the provider's differ, and neither side proves which is right",
    K.DISPUTE_WANTS_EVIDENCE: "the buyer's bank has opened a case, which is lost unless evidence is handed in in time",
}
"""What each is, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One thing that waits for a person. Its `id` is the operation's, refund's, payment's, break's or dispute's."""

    tenant_id: UUID
    kind: ReviewKind
    id: UUID
    since: datetime
    payment_id: UUID | None
    refund_id: UUID | None
    reconciliation_id: UUID | None
    amount_minor: int | None
    currency: str | None
    subject: str
    """What of: the call, the refund's reason, the order's standing, the break's object, the case's state."""
    why: str | None
    """The last that was heard of it: the look's reason, the failure's code, the break's kind, the bank's reason."""
    respond_by: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What a person may do: a call, the permission it takes, and what it does. `{reason}` is theirs to write."""

    method: str
    path: str
    permission: str
    effect: str
    body: Mapping[str, Any] = field(default_factory=dict)


REASON = {"reason": "{reason}"}
REFUND_AGAIN = (
    "asks the provider for a refund of its own; where the order's lines are to know of it, ask for it at the order instead"
)


def actions(review: Review) -> tuple[Action, ...]:
    """What the tenant's staff may do about it."""
    match review.kind:
        case K.OUTCOME_UNKNOWN:
            return _resolving(f"/v1/payments/{review.payment_id}/resolve", "payments:resolve", {})
        case K.REFUND_FAILED:
            path, again = f"/v1/payments/{review.payment_id}/refunds", {"amount_minor": review.amount_minor, **REASON}
            return (
                Action(method="POST", path=path, permission="refunds:write", body=again, effect=REFUND_AGAIN),
                _closing_refund(f"/v1/refunds/{review.id}/close", "payments:resolve", {}),
            )
        case K.MONEY_WITHOUT_ORDER:
            return _about_orphan(review)
        case K.BREAK_OPEN:
            run = f"/v1/reconciliations/{review.reconciliation_id}"
            look = Action(method="GET", path=run, permission="ledger:read", effect="shows both sides of it; nothing moves")
            return look, _closing_break(f"{run}/breaks/{review.id}/close", "payments:resolve", {})
        case K.DISPUTE_WANTS_EVIDENCE:
            effect = "shows the case; evidence is handed in at the provider's dashboard, and what comes of it is followed here"
            return (Action(method="GET", path=f"/v1/disputes/{review.id}", permission="disputes:read", effect=effect),)


def operators_actions(review: Review) -> tuple[Action, ...]:
    """What the platform's operators may do. The rest is the tenant's own to decide."""
    whose = {"tenant_id": str(review.tenant_id)}
    match review.kind:
        case K.OUTCOME_UNKNOWN:
            return _resolving(f"/ops/payments/{review.payment_id}/resolve", "ops:repair", whose)
        case K.REFUND_FAILED:
            return (_closing_refund(f"/ops/refunds/{review.id}/close", "ops:repair", whose),)
        case K.BREAK_OPEN:
            path = f"/ops/reconciliations/{review.tenant_id}/{review.reconciliation_id}"
            look = Action(method="GET", path=path, permission="ops:read", effect="shows both sides of it; nothing moves")
            return look, _closing_break(f"/ops/breaks/{review.id}/close", "ops:repair", whose)
        case K.MONEY_WITHOUT_ORDER | K.DISPUTE_WANTS_EVIDENCE:
            return ()


def _resolving(path: str, permission: str, body: Mapping[str, Any]) -> tuple[Action, ...]:
    read = "reads the provider at once, and ends as its object stands; 409 says what is in the way"
    ruled_out = (
        "says that it had no effect: counts once the provider was read and does not contradict, nothing is sent again, and "
        "what was asked is declined, refused or failed"
    )
    return tuple(
        Action(method="POST", path=path, permission=permission, effect=effect, body={**body, "verdict": verdict, **REASON})
        for verdict, effect in (("read-again", read), ("did-not-happen", ruled_out))
    )


def _closing_refund(path: str, permission: str, body: Mapping[str, Any]) -> Action:
    effect = "takes it off this list, as of a buyer who was paid in another way; no money moves, and it stays failed"
    return Action(method="POST", path=path, permission=permission, body={**body, **REASON}, effect=effect)


def _closing_break(path: str, permission: str, body: Mapping[str, Any]) -> Action:
    effect = "takes it off this list, settled; no money moves, no entry is made, and it opens anew if a side moves"
    return Action(method="POST", path=path, permission=permission, body={**body, **REASON}, effect=effect)


def _about_orphan(review: Review) -> tuple[Action, ...]:
    looking = "shows whether checkout's answer, or the order's own event, is parked; once it is read, what it says is done"
    return (
        Action(method="GET", path="/v1/payments-parked-messages", permission="parked:read", effect=looking),
        Action(
            method="POST",
            path=f"/v1/payments/{review.payment_id}/refunds",
            permission="refunds:write",
            body={"amount_minor": review.amount_minor, **REASON},
            effect="gives it back at once, whatever checkout may yet say: look for the order first",
        ),
    )
