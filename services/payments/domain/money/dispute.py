"""The dispute machine: a case that the buyer's bank has opened, followed from what the provider says of it. No I/O.

States are the provider's word, taken forwards only; money is what its balance says, and may still move when the case is
over. Observations may come in any order and any number of times.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar
from uuid import UUID, uuid5

from libs.common.contracts import Event
from libs.common.contracts.payments import DisputeClosed, DisputeOpened
from libs.common.decision import Aggregate
from services.payments.domain.money.ledger import Entry, EntryKind, exchanged, transfer
from services.payments.domain.payment.payment import Payment
from services.payments.domain.provider.outcome import DisputeStatus, SeenDispute

D = DisputeStatus
FINAL = frozenset({D.WARNING_CLOSED, D.WON, D.LOST, D.PREVENTED})
TRANSITIONS: dict[DisputeStatus, frozenset[DisputeStatus]] = {
    # An inquiry may end as one, or become a dispute.
    D.WARNING_NEEDS_RESPONSE: frozenset({D.WARNING_UNDER_REVIEW, D.NEEDS_RESPONSE, D.UNDER_REVIEW} | FINAL),
    D.WARNING_UNDER_REVIEW: frozenset({D.NEEDS_RESPONSE, D.UNDER_REVIEW} | FINAL),
    D.WARNING_CLOSED: frozenset(),
    D.NEEDS_RESPONSE: frozenset({D.UNDER_REVIEW, D.WON, D.LOST, D.PREVENTED}),
    D.UNDER_REVIEW: frozenset({D.WON, D.LOST, D.PREVENTED}),
    D.WON: frozenset(),
    D.LOST: frozenset(),
    D.PREVENTED: frozenset(),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Dispute(Aggregate):
    """A case about a payment, and the money that it has moved so far."""

    OWNER: ClassVar[str | None] = None
    id: UUID
    payment_id: UUID
    checkout_id: UUID
    order_id: UUID
    provider_id: str
    amount_minor: int
    currency: str
    reason: str
    state: DisputeStatus
    respond_by: datetime | None
    withdrawn_minor: int = 0
    reinstated_minor: int = 0
    fee_minor: int = 0
    """What the provider keeps for the case; it may give that back when the case is won."""
    fee_currency: str | None = None
    """None: the dispute's. The provider charges in its account's."""
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeDecision:
    """What becomes of a dispute, what is published of it, and what the ledger has of it."""

    dispute: Dispute
    events: tuple[Event, ...]
    entries: tuple[Entry, ...]


def dispute_id(payment_id: UUID, provider_id: str) -> UUID:
    """What we call the provider's case."""
    return uuid5(payment_id, provider_id)


def observe(payment: Payment, known: Dispute | None, seen: SeenDispute) -> DisputeDecision | None:
    """Open the case, or follow it. None: nothing of this is new."""
    dispute = known or _open(payment, seen)
    dispute = _followed(dispute, seen)
    dispute, entries = _settled(payment, dispute, seen)
    if dispute == known:
        return None
    events: tuple[Event, ...] = () if known else (_opened(dispute),)
    if dispute.state in FINAL and (known is None or known.state not in FINAL):
        events += (_closed(dispute),)
    return DisputeDecision(dispute=dispute, events=events, entries=entries)


def _open(payment: Payment, seen: SeenDispute) -> Dispute:
    return Dispute(
        tenant_id=payment.tenant_id,
        id=dispute_id(payment.id, seen.provider_id),
        payment_id=payment.id,
        checkout_id=payment.checkout_id,
        order_id=payment.order_id,
        provider_id=seen.provider_id,
        amount_minor=seen.amount_minor,
        currency=seen.currency.upper(),
        reason=seen.reason,
        state=seen.status,
        respond_by=seen.respond_by,
        created_at=seen.created_at,
    )


def _followed(dispute: Dispute, seen: SeenDispute) -> Dispute:
    """Forwards only: what is behind where we know it to be is old news."""
    if seen.status not in TRANSITIONS[dispute.state]:
        return dispute
    return replace(dispute, state=seen.status, respond_by=seen.respond_by)


def _settled(payment: Payment, dispute: Dispute, seen: SeenDispute) -> tuple[Dispute, tuple[Entry, ...]]:
    """The money that moved since we last looked: what was taken and given back only grows, so less of either is old news.

    A fee may shrink, too, but only along with one of the others; where they stand still, the greater fee is the newer.
    """
    taken = seen.withdrawn_minor - dispute.withdrawn_minor
    returned = seen.reinstated_minor - dispute.reinstated_minor
    if taken < 0 or returned < 0:
        return dispute, ()
    fee_minor = seen.fee_minor if taken or returned else max(seen.fee_minor, dispute.fee_minor)
    charged = fee_minor - dispute.fee_minor
    settled = replace(
        dispute,
        withdrawn_minor=seen.withdrawn_minor,
        reinstated_minor=seen.reinstated_minor,
        fee_minor=fee_minor,
        fee_currency=seen.fee_currency.upper() if seen.fee_currency else dispute.fee_currency,
    )
    return settled, (*_entries(payment, settled, taken, returned, charged), *_exchanged(payment, settled, seen))


def _exchanged(payment: Payment, dispute: Dispute, seen: SeenDispute) -> tuple[Entry, ...]:
    """All exchanges of the case so far: each is one movement, so those that are in the books are not put there again."""
    moved = [*((each, False) for each in seen.withdrawals), *((each, True) for each in seen.reinstatements)]
    return tuple(entry for exchange, comes in moved for entry in exchanged(payment, dispute.amount_minor, exchange, comes=comes))


def _entries(payment: Payment, settled: Dispute, taken: int, returned: int, charged: int) -> tuple[Entry, ...]:
    """What the bank has just taken and given back, and what the provider has charged for the case, or given back of it.

    The sums that the case has moved so far tell each of several entries from the others.
    """
    so_far = f"{settled.withdrawn_minor}:{settled.reinstated_minor}:{settled.fee_minor}"
    moved = (
        (EntryKind.CHARGEBACK, taken, None),
        (EntryKind.CHARGEBACK_RETURN, returned, None),
        (EntryKind.DISPUTE_FEE if charged >= 0 else EntryKind.DISPUTE_FEE_RETURN, abs(charged), settled.fee_currency),
    )
    return tuple(
        entry
        for kind, amount_minor, currency in moved
        for entry in transfer(payment, kind, uuid5(settled.id, f"{kind}:{so_far}"), amount_minor, settled.provider_id, currency)
    )


def _opened(dispute: Dispute) -> DisputeOpened:
    return DisputeOpened(
        dispute_id=dispute.id,
        payment_id=dispute.payment_id,
        checkout_id=dispute.checkout_id,
        order_id=dispute.order_id,
        amount_minor=dispute.amount_minor,
        currency=dispute.currency,
        reason=dispute.reason,
    )


def _closed(dispute: Dispute) -> DisputeClosed:
    return DisputeClosed(
        dispute_id=dispute.id,
        payment_id=dispute.payment_id,
        checkout_id=dispute.checkout_id,
        order_id=dispute.order_id,
        amount_minor=dispute.amount_minor,
        currency=dispute.currency,
        outcome=dispute.state,
    )
