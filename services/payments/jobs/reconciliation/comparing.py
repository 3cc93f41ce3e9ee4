"""What can be compared: of each kind of object, where the provider lists it, where we have it, and how it is read again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import UUID

from libs.common.clock import NIL
from libs.common.database import Connection
from services.payments.domain.provider.outcome import (
    Declined,
    Exchange,
    IntentStatus,
    Outcome,
    Rejected,
    SeenDispute,
    SeenIntent,
    SeenRefund,
    SeenTransaction,
    Succeeded,
    Throttled,
    TransactionKind,
    Unknown,
)
from services.payments.domain.reconciliation.comparison import Found, Side, Subject
from services.payments.domain.reconciliation.sides import (
    metadata_id,
    of_entries,
    of_intent,
    of_seen_dispute,
    of_seen_refund,
    of_transaction,
)
from services.payments.gateway.protocol import GatewayUnavailableError, PaymentGateway
from services.payments.handlers.disputes import ObserveDispute
from services.payments.handlers.observations import ObserveIntent
from services.payments.handlers.reconciliation import PostMovement
from services.payments.handlers.refunds import ObserveRefund
from services.payments.repository.bookmark import Bookmark
from services.payments.repository.reconciliation import (
    Window,
    dispute_sides,
    dispute_sides_in,
    entries_of_payments,
    payment_sides,
    payment_sides_in,
    payments_of_intents,
    payments_of_sources,
    refund_sides,
    refund_sides_in,
)

READS = 5
"""How often one object is asked for while the account's limit holds us back."""
LONGEST_WAIT_SECONDS = 5.0
NOT_FOUND = "not-found"
COMES: frozenset[str] = frozenset({TransactionKind.CHARGE, TransactionKind.REFUND_FAILURE, TransactionKind.DISPUTE_REVERSAL})
"""The movements by which money comes to us."""

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Told:
    """The provider's object: in the few words of a comparison, and as it was told."""

    side: Side
    seen: Any


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object that both sides have, and how each side is asked for it."""

    listed: Callable[[PaymentGateway, Window], AsyncIterator[Any]]
    """What the provider made in a window."""
    told: Callable[[Connection, UUID, Sequence[Any]], Awaitable[Sequence[Told]]]
    """Those of the listed that are this tenant's."""
    ours: Callable[[Connection, UUID, Sequence[Side]], Awaitable[Sequence[Side]]]
    """What we have of these objects, by our ids and the provider's."""
    ours_in: Callable[[Connection, UUID, Window, Bookmark, int], Awaitable[Sequence[Side]]]
    """One page of what we made in a window."""
    read: Callable[[PaymentGateway, Side], Awaitable[Told | None]]
    """The provider's object as it stands now. None: it has none. Raises GatewayUnavailableError."""
    repair: Callable[[Found, Told], Any]
    """The command that tells our machine of this difference what the provider proves."""


# --- Payments, beside the provider's payments that name one in their metadata ---------------------------------------


async def _told_payments(_: Connection, tenant_id: UUID, seen: Sequence[SeenIntent]) -> Sequence[Told]:
    return [Told(of_intent(each), each) for each in seen if metadata_id(each.metadata, "tenant_id") == tenant_id]


async def _our_payments(connection: Connection, tenant_id: UUID, beside: Sequence[Side]) -> Sequence[Side]:
    return await payment_sides(connection, tenant_id, *_names(beside))


async def _read_payment(gateway: PaymentGateway, known: Side) -> Told | None:
    if known.provider_id is None:
        return None
    intent_id = known.provider_id
    outcome = await patiently(lambda: gateway.retrieve_intent(intent_id))
    match outcome:
        case Succeeded():
            seen = _as_listed(outcome, known)
        case Declined():
            seen = SeenIntent(intent_id, IntentStatus.NEEDS_METHOD, 0, known.currency, 0, 0, {}, known.made_at)
        case _:
            _require_absent(outcome)
            return None
    return Told(replace(of_intent(seen), our_id=known.our_id, payment_id=known.payment_id), outcome)


def _as_listed(seen: Succeeded, known: Side) -> SeenIntent:
    members = {name: getattr(seen, name) for name in _LISTED}
    return SeenIntent(**members, metadata={}, created_at=known.made_at)


_LISTED = frozenset(field.name for field in fields(SeenIntent)) & {field.name for field in fields(Succeeded)}


# --- Refunds that name the tenant in their metadata, or are of one of its payments -----------------------------------


async def _told_refunds(connection: Connection, tenant_id: UUID, seen: Sequence[SeenRefund]) -> Sequence[Told]:
    payments = await _payments_of(connection, tenant_id, seen)
    return [
        Told(of_seen_refund(each, payments.get(each.intent_id or "")), each)
        for each in seen
        if each.intent_id in payments or metadata_id(each.metadata, "tenant_id") == tenant_id
    ]


async def _our_refunds(connection: Connection, tenant_id: UUID, beside: Sequence[Side]) -> Sequence[Side]:
    return await refund_sides(connection, tenant_id, *_names(beside))


async def _read_refund(gateway: PaymentGateway, known: Side) -> Told | None:
    if known.provider_id is None:
        return None
    provider_id = known.provider_id
    outcome = await patiently(lambda: gateway.retrieve_refund(provider_id))
    if isinstance(outcome, SeenRefund):
        side = of_seen_refund(outcome, known.payment_id)
        return Told(replace(side, our_id=known.our_id or side.our_id), outcome)
    _require_absent(outcome)
    return None


# --- Disputes of the tenant's payments ---------------------------------------------------------------------------------


async def _told_disputes(connection: Connection, tenant_id: UUID, seen: Sequence[SeenDispute]) -> Sequence[Told]:
    payments = await _payments_of(connection, tenant_id, seen)
    mine = [each for each in seen if each.intent_id in payments]
    return [Told(of_seen_dispute(each, payments[each.intent_id or ""]), each) for each in mine]


async def _our_disputes(connection: Connection, tenant_id: UUID, beside: Sequence[Side]) -> Sequence[Side]:
    return await dispute_sides(connection, tenant_id, *_names(beside))


async def _read_dispute(gateway: PaymentGateway, known: Side) -> Told | None:
    if known.provider_id is None:
        return None
    provider_id = known.provider_id
    outcome = await patiently(lambda: gateway.retrieve_dispute(provider_id))
    if isinstance(outcome, SeenDispute):
        return Told(of_seen_dispute(outcome, known.payment_id), outcome)
    _require_absent(outcome)
    return None


# --- Movements of the provider's balance that the tenant's payments caused, beside our ledger ---------------------------


async def _told_transactions(connection: Connection, tenant_id: UUID, seen: Sequence[SeenTransaction]) -> Sequence[Told]:
    sources = [each.source_id for each in seen if each.source_id is not None]
    payments = await payments_of_sources(connection, tenant_id, sources)
    mine = [each for each in seen if each.source_id in payments]
    return [Told(of_transaction(each, payments[each.source_id or ""]), each) for each in mine]


async def _our_entries(connection: Connection, tenant_id: UUID, beside: Sequence[Side]) -> Sequence[Side]:
    payments = [side.payment_id for side in beside if side.payment_id is not None]
    entries = await entries_of_payments(connection, tenant_id, payments)
    theirs = {side.provider_id: side for side in beside if side.payment_id is not None}
    found = [of_entries(side, entries.get(side.payment_id or NIL, ())) for side in theirs.values()]
    return [side for side in found if side is not None]


async def _no_entries(*_: Any) -> Sequence[Side]:
    """What the ledger has of an object that the provider does not know is found with that object."""
    return ()


async def _same_transaction(_: PaymentGateway, known: Side) -> Told:
    """A movement never changes, so it need not be read again."""
    return Told(known, None)


def _post(found: Found, told: Told) -> PostMovement:
    ours, theirs, reference = found.ours, told.side, told.side.provider_id or ""
    exchange = Exchange(reference, theirs.amount_minor, theirs.currency, theirs.exchange_rate)
    is_missing = ours is not None and ours.exchanged_minor is not None and ours.amount_minor == 0
    return PostMovement(
        payment_id=found.payment_id or NIL,
        reference=reference,
        currency=theirs.currency,
        fee_minor=theirs.fee_minor or 0,
        exchange=exchange if is_missing else None,
        exchanged_minor=(ours.exchanged_minor or 0) if ours else 0,
        comes=theirs.state in COMES,
    )


KINDS: Mapping[Subject, Kind] = MappingProxyType(
    {
        Subject.PAYMENT: Kind(
            listed=lambda gateway, window: gateway.list_intents(*window),
            told=_told_payments,
            ours=_our_payments,
            ours_in=payment_sides_in,
            read=_read_payment,
            repair=lambda found, told: ObserveIntent(payment_id=found.payment_id or NIL, seen=told.seen),
        ),
        Subject.REFUND: Kind(
            listed=lambda gateway, window: gateway.list_refunds(*window),
            told=_told_refunds,
            ours=_our_refunds,
            ours_in=refund_sides_in,
            read=_read_refund,
            repair=lambda found, told: ObserveRefund(payment_id=found.payment_id or NIL, seen=told.seen),
        ),
        Subject.DISPUTE: Kind(
            listed=lambda gateway, window: gateway.list_disputes(*window),
            told=_told_disputes,
            ours=_our_disputes,
            ours_in=dispute_sides_in,
            read=_read_dispute,
            repair=lambda found, told: ObserveDispute(payment_id=found.payment_id or NIL, seen=told.seen),
        ),
        Subject.TRANSACTION: Kind(
            listed=lambda gateway, window: gateway.list_transactions(*window),
            told=_told_transactions,
            ours=_our_entries,
            ours_in=_no_entries,
            read=_same_transaction,
            repair=_post,
        ),
    }
)
"""In the order of what rests on what: a ledger lacks what its payment has not heard of yet."""


async def patiently(call: Callable[[], Awaitable[R]]) -> R:
    """Read something, waiting where the account's limit wants us to. Raises GatewayUnavailableError when that is no use."""
    for _ in range(READS):
        outcome = await call()
        if not isinstance(outcome, Throttled):
            return outcome
        await asyncio.sleep(min(outcome.retry_after or 1.0, LONGEST_WAIT_SECONDS))
    raise GatewayUnavailableError("throttled")


def _require_absent(outcome: Outcome | SeenDispute) -> None:
    """It must be certain that the provider has no such object: anything less says nothing, and ends the run for now."""
    if isinstance(outcome, Rejected) and outcome.code == NOT_FOUND:
        return
    raise GatewayUnavailableError(outcome.reason if isinstance(outcome, Unknown) else f"a read was answered with {outcome}")


def _names(sides: Sequence[Side]) -> tuple[list[UUID], list[str]]:
    keys = [side.our_id for side in sides if side.our_id is not None]
    return keys, [side.provider_id for side in sides if side.provider_id is not None]


async def _payments_of(
    connection: Connection, tenant_id: UUID, seen: "Sequence[SeenRefund] | Sequence[SeenDispute]"
) -> dict[str, UUID]:
    intents = [each.intent_id for each in seen if each.intent_id is not None]
    return dict(await payments_of_intents(connection, tenant_id, intents))
