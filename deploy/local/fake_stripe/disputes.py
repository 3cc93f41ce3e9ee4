"""The dispute machine: a case is opened, answered and decided; a chargeback moves money, an inquiry does not.

`winning_evidence`, `losing_evidence` and `escalate_inquiry_evidence` as `uncategorized_text` decide a case at once, as
in Stripe's test mode; any other evidence puts it under review until it is decided over `/_control`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from deploy.local.fake_stripe import balance
from deploy.local.fake_stripe.cards import Card
from deploy.local.fake_stripe.errors import StripeError
from deploy.local.fake_stripe.records import Change, Charge, Dispute, DisputeStatus, Transaction

EVIDENCE_SECONDS = 9 * 24 * 3600
"""How long a case waits for evidence; then it is lost (an inquiry is closed)."""

INQUIRY = "inquiry:"
REASONS = (
    "fraudulent",
    "product_not_received",
    "product_unacceptable",
    "duplicate",
    "subscription_canceled",
    "credit_not_processed",
    "unrecognized",
    "general",
    "noncompliant",
)

_S = DisputeStatus
TRANSITIONS: Mapping[DisputeStatus, frozenset[DisputeStatus]] = MappingProxyType(
    {
        _S.WARNING_NEEDS_RESPONSE: frozenset({_S.WARNING_UNDER_REVIEW, _S.WARNING_CLOSED, _S.NEEDS_RESPONSE}),
        _S.WARNING_UNDER_REVIEW: frozenset({_S.WARNING_CLOSED, _S.NEEDS_RESPONSE}),
        _S.WARNING_CLOSED: frozenset(),
        _S.NEEDS_RESPONSE: frozenset({_S.UNDER_REVIEW, _S.WON, _S.LOST}),
        _S.UNDER_REVIEW: frozenset({_S.WON, _S.LOST}),
        _S.WON: frozenset(),
        _S.LOST: frozenset(),
    }
)
WAITING = frozenset({_S.WARNING_NEEDS_RESPONSE, _S.NEEDS_RESPONSE})
_CLOSED = frozenset({_S.WARNING_CLOSED, _S.WON, _S.LOST})
_INQUIRIES = frozenset({_S.WARNING_NEEDS_RESPONSE, _S.WARNING_UNDER_REVIEW, _S.WARNING_CLOSED})

NewId = Callable[[str], str]


def is_inquiry(dispute: Dispute) -> bool:
    """Tell whether no money was taken (yet)."""
    return dispute.status in _INQUIRIES


def opened_by_card(change: Change, card: Card, *, now: int, new_id: NewId) -> Change:
    """Add to a capture the disputes its card is there to raise."""
    for reason in card.disputes:
        assert change.charge
        inquiry = reason.startswith(INQUIRY)
        case = opened(change.charge, reason.removeprefix(INQUIRY), inquiry=inquiry, now=now, new_id=new_id)
        change = replace(
            change,
            charge=case.charge,
            disputes=change.disputes + case.disputes,
            transactions=change.transactions + case.transactions,
            events=tuple(dict.fromkeys(change.events + case.events)),
        )
    return change


def opened(charge: Charge, reason: str, *, inquiry: bool, now: int, new_id: NewId, amount: int | None = None) -> Change:
    """Open a case over a captured charge, for all that was captured unless `amount` says less."""
    dispute = Dispute(
        id=new_id("du"),
        payment_intent=charge.payment_intent,
        charge=charge.id,
        payment_method=charge.payment_method,
        amount=charge.amount_captured if amount is None else amount,
        currency=charge.currency,
        created=now,
        reason=reason,
        status=_S.WARNING_NEEDS_RESPONSE if inquiry else _S.NEEDS_RESPONSE,
        due_by=now + EVIDENCE_SECONDS,
    )
    disputed = replace(charge, disputed=True)
    if inquiry:
        return Change(charge=disputed, disputes=(dispute,), events=("charge.dispute.created",))
    dispute, taken = _withdrawn(dispute, now, new_id)
    events = ("charge.dispute.created", "charge.dispute.funds_withdrawn")
    return Change(charge=disputed, disputes=(dispute,), transactions=(taken,), events=events)


def answered(dispute: Dispute, evidence: Mapping[str, str], *, submit: bool, now: int, new_id: NewId) -> Change:
    """Take evidence; submitted, it decides the case or puts it under review."""
    if dispute.status in _CLOSED:
        raise _refused(f"This dispute is already closed with a status of {dispute.status}.")
    told = replace(dispute, evidence={**dispute.evidence, **evidence})
    if not submit:
        return Change(disputes=(told,), events=("charge.dispute.updated",))
    told = replace(told, submission_count=told.submission_count + 1)
    verdict = told.evidence.get("uncategorized_text")
    inquiry = is_inquiry(told)
    if verdict == "winning_evidence":
        return moved(told, _S.WARNING_CLOSED if inquiry else _S.WON, now=now, new_id=new_id)
    if verdict == "losing_evidence":
        return moved(told, _S.WARNING_CLOSED if inquiry else _S.LOST, now=now, new_id=new_id)
    if verdict == "escalate_inquiry_evidence" and inquiry:
        return moved(told, _S.NEEDS_RESPONSE, now=now, new_id=new_id)
    if told.status in WAITING:
        return moved(told, _S.WARNING_UNDER_REVIEW if inquiry else _S.UNDER_REVIEW, now=now, new_id=new_id)
    return Change(disputes=(told,), events=("charge.dispute.updated",))


def closed(dispute: Dispute, *, now: int, new_id: NewId) -> Change:
    """Give the case up."""
    if dispute.status in _CLOSED:
        raise _refused(f"This dispute is already closed with a status of {dispute.status}.")
    return moved(dispute, _S.WARNING_CLOSED if is_inquiry(dispute) else _S.LOST, now=now, new_id=new_id)


def moved(dispute: Dispute, to: DisputeStatus, *, now: int, new_id: NewId) -> Change:
    """Put the case into its next state, with the money and the events that go along."""
    if to not in TRANSITIONS[dispute.status]:
        raise _refused(f"A dispute with a status of {dispute.status} cannot become {to}.")
    after = replace(dispute, status=to)
    if to is _S.NEEDS_RESPONSE:
        after, taken = _withdrawn(replace(after, due_by=now + EVIDENCE_SECONDS), now, new_id)
        events = ("charge.dispute.updated", "charge.dispute.funds_withdrawn")
        return Change(disputes=(after,), transactions=(taken,), events=events)
    if to is _S.WON:
        returned = balance.reinstated(after, now=now, new_id=new_id)
        after = replace(after, transactions=(*after.transactions, returned.id))
        events = ("charge.dispute.funds_reinstated", "charge.dispute.closed")
        return Change(disputes=(after,), transactions=(returned,), events=events)
    return Change(disputes=(after,), events=("charge.dispute.closed" if to in _CLOSED else "charge.dispute.updated",))


def _withdrawn(dispute: Dispute, now: int, new_id: NewId) -> tuple[Dispute, Transaction]:
    taken = balance.withdrawn(dispute, now=now, new_id=new_id)
    return replace(dispute, transactions=(*dispute.transactions, taken.id)), taken


def _refused(message: str) -> StripeError:
    return StripeError(400, "invalid_request_error", message, executed=True)
