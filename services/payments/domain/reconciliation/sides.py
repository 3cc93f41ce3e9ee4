"""What we have and what the provider has, each in the few words in which they can be compared. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from services.payments.domain.money.dispute import Dispute
from services.payments.domain.money.ledger import Entry, EntryKind
from services.payments.domain.money.refund import STANDS, Refund, RefundState, found_refund_id
from services.payments.domain.payment.payment import Payment, PaymentState
from services.payments.domain.provider.outcome import (
    DisputeStatus,
    IntentStatus,
    SeenDispute,
    SeenIntent,
    SeenRefund,
    SeenTransaction,
    TransactionKind,
)
from services.payments.domain.reconciliation.comparison import Side, Standing, Subject

K = EntryKind
PRINCIPAL: dict[TransactionKind, frozenset[EntryKind]] = {
    TransactionKind.CHARGE: frozenset({K.CAPTURE}),
    TransactionKind.REFUND: frozenset({K.REFUND}),
    TransactionKind.REFUND_FAILURE: frozenset({K.REFUND_RETURN}),
    TransactionKind.DISPUTE: frozenset({K.CHARGEBACK}),
    TransactionKind.DISPUTE_REVERSAL: frozenset({K.CHARGEBACK_RETURN}),
    TransactionKind.FEE: frozenset(),
    TransactionKind.OTHER: frozenset(),
}
"""The entries of our ledger that tell of each kind of movement on the provider's balance."""
EXCHANGES = frozenset({K.EXCHANGE_IN, K.EXCHANGE_OUT})
FEES: dict[EntryKind, int] = {K.FEE: 1, K.FEE_RETURN: -1}
DISPUTED = frozenset({TransactionKind.DISPUTE, TransactionKind.DISPUTE_REVERSAL})
"""Their fees are the dispute's, and are compared with it."""


def metadata_id(metadata: Mapping[str, str], name: str) -> UUID | None:
    """An id of ours that the provider keeps for us, if that is what it is."""
    try:
        return UUID(metadata[name])
    except (KeyError, ValueError):
        return None


# --- Payments -----------------------------------------------------------------------------------------------------


def of_payment(payment: Payment) -> Side:
    """A payment of ours."""
    return Side(
        subject=Subject.PAYMENT,
        our_id=payment.id,
        provider_id=payment.intent_id,
        payment_id=payment.id,
        standing=_standing(payment),
        state=str(payment.state),
        amount_minor=payment.captured_minor,
        held_minor=payment.authorized_minor - payment.captured_minor if _standing(payment) is Standing.HELD else 0,
        currency=payment.currency,
        made_at=payment.created_at,
        since=max(payment.created_at, payment.operation_at or payment.created_at),
        may_begin_again=payment.state is PaymentState.DECLINED,
    )


def _standing(payment: Payment) -> Standing:
    match payment.state:
        case PaymentState.CAPTURED:
            return Standing.MOVED
        case PaymentState.VOIDED | PaymentState.DECLINED | PaymentState.EXPIRED:
            return Standing.NOTHING
        case (
            PaymentState.CREATED
            | PaymentState.AUTHORIZING
            | PaymentState.REQUIRES_ACTION
            | PaymentState.AUTHORIZED
            | PaymentState.CAPTURING
            | PaymentState.VOIDING
            | PaymentState.UNKNOWN
        ):
            return Standing.HELD if payment.authorized_minor > payment.captured_minor else Standing.OPEN


def of_intent(seen: SeenIntent) -> Side:
    """The provider's payment."""
    payment_id = metadata_id(seen.metadata, "payment_id")
    return Side(
        subject=Subject.PAYMENT,
        our_id=payment_id,
        provider_id=seen.intent_id,
        payment_id=payment_id,
        standing=_standing_there(seen.status),
        state=str(seen.status),
        amount_minor=seen.amount_received_minor,
        held_minor=seen.amount_capturable_minor,
        currency=seen.currency.upper(),
        made_at=seen.created_at,
        since=seen.created_at,
    )


def _standing_there(status: IntentStatus) -> Standing:
    match status:
        case IntentStatus.CAPTURED:
            return Standing.MOVED
        case IntentStatus.AUTHORIZED:
            return Standing.HELD
        case IntentStatus.CANCELED:
            return Standing.NOTHING
        case IntentStatus.NEEDS_METHOD | IntentStatus.NEEDS_CONFIRMATION | IntentStatus.NEEDS_ACTION | IntentStatus.PROCESSING:
            return Standing.OPEN


# --- Refunds ------------------------------------------------------------------------------------------------------


def of_refund(refund: Refund) -> Side:
    """A refund of ours."""
    return _refund_side(
        refund.state,
        str(refund.state),
        our_id=refund.id,
        provider_id=refund.provider_id,
        payment_id=refund.payment_id,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        made_at=refund.created_at,
    )


def of_seen_refund(seen: SeenRefund, payment_id: UUID | None) -> Side:
    """The provider's refund, of the payment that its intent led to."""
    return _refund_side(
        STANDS[seen.status],
        str(seen.status),
        our_id=metadata_id(seen.metadata, "refund_id") or (payment_id and found_refund_id(payment_id, seen.provider_id)),
        provider_id=seen.provider_id,
        payment_id=payment_id,
        amount_minor=seen.amount_minor,
        currency=seen.currency.upper(),
        made_at=seen.created_at,
    )


def _refund_side(
    stands: RefundState,
    state: str,
    *,
    our_id: UUID | None,
    provider_id: str | None,
    payment_id: UUID | None,
    amount_minor: int,
    currency: str,
    made_at: datetime,
) -> Side:
    standing = _refund_standing(stands)
    return Side(
        subject=Subject.REFUND,
        our_id=our_id,
        provider_id=provider_id,
        payment_id=payment_id,
        standing=standing,
        state=state,
        amount_minor=amount_minor if standing is Standing.MOVED else 0,
        held_minor=amount_minor if standing is Standing.OPEN else 0,
        currency=currency,
        made_at=made_at,
        since=made_at,
    )


def _refund_standing(state: RefundState) -> Standing:
    match state:
        case RefundState.SUCCEEDED:
            return Standing.MOVED
        case RefundState.FAILED | RefundState.CANCELED:
            return Standing.NOTHING
        case RefundState.REQUESTED | RefundState.UNKNOWN | RefundState.PENDING:
            return Standing.OPEN


# --- Disputes -----------------------------------------------------------------------------------------------------


def of_dispute(dispute: Dispute) -> Side:
    """A dispute of ours."""
    return Side(
        subject=Subject.DISPUTE,
        our_id=dispute.id,
        provider_id=dispute.provider_id,
        payment_id=dispute.payment_id,
        standing=_dispute_standing(dispute.state),
        state=str(dispute.state),
        amount_minor=dispute.withdrawn_minor - dispute.reinstated_minor,
        fee_minor=dispute.fee_minor,
        fee_currency=dispute.fee_currency,
        currency=dispute.currency,
        made_at=dispute.created_at,
        since=dispute.created_at,
    )


def of_seen_dispute(seen: SeenDispute, payment_id: UUID | None) -> Side:
    """The provider's dispute, of the payment that its intent led to."""
    return Side(
        subject=Subject.DISPUTE,
        our_id=None,
        provider_id=seen.provider_id,
        payment_id=payment_id,
        standing=_dispute_standing(seen.status),
        state=str(seen.status),
        amount_minor=seen.withdrawn_minor - seen.reinstated_minor,
        fee_minor=seen.fee_minor,
        fee_currency=seen.fee_currency.upper() if seen.fee_currency else None,
        currency=seen.currency.upper(),
        made_at=seen.created_at,
        since=seen.created_at,
    )


def _dispute_standing(status: DisputeStatus) -> Standing:
    match status:
        case DisputeStatus.LOST:
            return Standing.MOVED
        case DisputeStatus.WON | DisputeStatus.WARNING_CLOSED | DisputeStatus.PREVENTED:
            return Standing.NOTHING
        case (
            DisputeStatus.NEEDS_RESPONSE
            | DisputeStatus.UNDER_REVIEW
            | DisputeStatus.WARNING_NEEDS_RESPONSE
            | DisputeStatus.WARNING_UNDER_REVIEW
        ):
            return Standing.OPEN


# --- Balance transactions -----------------------------------------------------------------------------------------


def of_transaction(seen: SeenTransaction, payment_id: UUID) -> Side:
    """A movement on the provider's balance that a payment of ours caused. Amounts without their sign: the kind has it."""
    return Side(
        subject=Subject.TRANSACTION,
        our_id=None,
        provider_id=seen.provider_id,
        payment_id=payment_id,
        standing=Standing.MOVED,
        state=str(seen.kind),
        amount_minor=abs(seen.amount_minor),
        fee_minor=None if seen.kind in DISPUTED else seen.fee_minor,
        currency=seen.currency.upper(),
        made_at=seen.created_at,
        since=seen.created_at,
        source_id=seen.source_id,
        exchange_rate=seen.rate,
    )


def of_entries(their: Side, entries: Iterable[Entry]) -> Side | None:
    """What our ledger has of that movement, out of all its entries of the payment. None: nothing.

    Of a movement in another currency than the payment's, its amount is what the exchange has in that currency.
    """
    own = [entry for entry in entries if entry.reference in {their.provider_id, their.source_id}]
    kinds = PRINCIPAL[TransactionKind(their.state)]
    principal = _told(their, [(entry, entry.amount_minor) for entry in own if entry.kind in kinds], their.amount_minor)
    if not principal:
        return None
    there = [entry for entry in own if entry.currency == their.currency]
    fees = _told(their, [(e, e.amount_minor * FEES[e.kind]) for e in there if e.kind in FEES], their.fee_minor or 0)
    moved_minor = sum(amount for _, amount in principal)
    is_exchanged = principal[0][0].currency != their.currency
    return replace(
        their,
        our_id=principal[0][0].id,
        state=str(principal[0][0].kind),
        amount_minor=sum(entry.amount_minor for entry in there if entry.kind in EXCHANGES) if is_exchanged else moved_minor,
        fee_minor=None if their.fee_minor is None else sum(amount for _, amount in fees),
        # Of several captures that only name their charge nobody can say which of them this is.
        exchanged_minor=None if not is_exchanged else moved_minor if len(principal) == 1 else 0,
    )


def _told(their: Side, entries: list[tuple[Entry, int]], amount_minor: int) -> list[tuple[Entry, int]]:
    """Those that name the movement itself, else one of its amount that names its source, else all that name its source.

    Several captures of one payment have one source, so the source alone does not tell them apart.
    """
    named = [each for each in entries if each[0].reference == their.provider_id]
    alike = [each for each in entries if each[1] == amount_minor and each[0].currency == their.currency]
    return named or alike[:1] or entries
