"""Reconciliations: asked for, taken up, what they find, and their end. All commands; none of it is anybody else's event."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog

from libs.common.decision import Message, Ref, World
from libs.common.errors import ConflictError, NotFoundError
from libs.common.sensitive import without_sensitive
from services.payments.domain.money import ledger
from services.payments.domain.payment.payment import Payment
from services.payments.domain.provider.outcome import Exchange
from services.payments.domain.reconciliation.comparison import Found, Totals
from services.payments.domain.reconciliation.reconciliation import (
    GRACE,
    Break,
    Reconciliation,
    belongs_to,
    finish,
    found_again,
    gone,
    hold,
    interrupt,
    settle,
    take_up,
)
from services.payments.handlers.ledger import post
from services.payments.handlers.table import HANDLERS

TAKEN_OVER = "reconciliation-taken-over"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestReconciliation:
    """Have a tenant's books compared over a window; by the schedule, or by an operator who is named."""

    reconciliation_id: UUID
    window_from: datetime
    window_to: datetime
    grace: timedelta = GRACE
    requested_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeUpReconciliation:
    """Begin it, or go on where whoever had it fell silent."""

    reconciliation_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFindings:
    """Put on record what one stretch of a comparison found. It also says that the one who runs it is alive."""

    reconciliation_id: UUID
    tries: int
    found: tuple[Found, ...] = ()
    repaired: tuple[Found, ...] = ()
    gone: tuple[UUID, ...] = ()
    """Open breaks that were looked for again and are no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishReconciliation:
    """It is done."""

    reconciliation_id: UUID
    tries: int
    counts: dict[str, int]
    totals: Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptReconciliation:
    """The provider or the database fell silent in the middle of it."""

    reconciliation_id: UUID
    tries: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseBreak:
    """Close a break that nobody can mend, and say why."""

    break_id: UUID
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PostMovement:
    """Put into the ledger what the provider's balance shows of a movement and the ledger lacks: its fee, its exchange."""

    payment_id: UUID
    reference: str
    currency: str
    """In which the movement is."""
    fee_minor: int
    exchange: Exchange | None = None
    exchanged_minor: int = 0
    """How much of the payment's money, in its own currency, was exchanged."""
    comes: bool = True


def _run(message: Message[Any]) -> list[Ref]:
    return [Ref(Reconciliation, message.data.reconciliation_id)]


def _run_and_breaks(message: Message[RecordFindings]) -> list[Ref]:
    command = message.data
    keys = [each.key(message.tenant_id) for each in (*command.found, *command.repaired)]
    return [*_run(message), *(Ref(Break, key) for key in (*keys, *command.gone))]


@HANDLERS.on(RequestReconciliation, _run)
def request_reconciliation(world: World, message: Message[RequestReconciliation]) -> Reconciliation:
    """Answers the run as it is, should this have been asked before."""
    command = message.data
    known = world.get(Reconciliation, command.reconciliation_id)
    if known is not None:
        return known
    return world.save(
        Reconciliation(
            tenant_id=world.tenant_id,
            id=command.reconciliation_id,
            window_from=command.window_from,
            window_to=command.window_to,
            grace_seconds=int(command.grace.total_seconds()),
            requested_by=command.requested_by,
            due_at=world.now,
            started_at=world.now,
        )
    )


@HANDLERS.on(TakeUpReconciliation, _run)
def take_up_reconciliation(world: World, message: Message[TakeUpReconciliation]) -> Reconciliation | None:
    """Answers the run, which is now the caller's. None: somebody else has it, or it is over."""
    known = world.get(Reconciliation, message.data.reconciliation_id)
    if known is None:
        raise NotFoundError("reconciliation-not-found", "there is no such reconciliation")
    taken = take_up(known, world.now)
    return None if taken is None else world.save(taken)


@HANDLERS.on(RecordFindings, _run_and_breaks)
def record_findings(world: World, message: Message[RecordFindings]) -> None:
    """Breaks found again keep their age. Raises ConflictError when the run is in other hands."""
    command = message.data
    run = _own(world, command.reconciliation_id, command.tries)
    for repaired, differences in ((False, command.found), (True, command.repaired)):
        for found in differences:
            known = world.get(Break, found.key(world.tenant_id))
            world.save(found_again(known, found, run, world.now, repaired=repaired))
    for key in command.gone:
        known = world.get(Break, key)
        closed = gone(known, world.now) if known else None
        if closed is not None:
            world.save(closed)
    world.save(hold(run, world.now))


@HANDLERS.on(FinishReconciliation, _run)
def finish_reconciliation(world: World, message: Message[FinishReconciliation]) -> None:
    """Nothing more will be found. Raises ConflictError when the run is in other hands."""
    command = message.data
    run = _own(world, command.reconciliation_id, command.tries)
    world.save(finish(run, command.counts, command.totals, world.now))


@HANDLERS.on(InterruptReconciliation, _run)
def interrupt_reconciliation(world: World, message: Message[InterruptReconciliation]) -> Reconciliation:
    """Later again, or never. Raises ConflictError when the run is in other hands."""
    command = message.data
    run = _own(world, command.reconciliation_id, command.tries)
    return world.save(interrupt(run, command.why, world.now))


@HANDLERS.on(CloseBreak, lambda m: [Ref(Break, m.data.break_id)])
def close_break(world: World, message: Message[CloseBreak]) -> Break:
    """Answers the break as it is kept, with who closed it and why. Raises ConflictError for one that is closed."""
    known = world.get(Break, message.data.break_id)
    if known is None:
        raise NotFoundError("break-not-found", "there is no such break for you")
    settled = settle(known, message.actor, without_sensitive(message.data.reason), world.now)
    log.warning(
        "break.settled",
        break_id=str(settled.id),
        kind=settled.kind,
        subject=settled.subject,
        provider_id=settled.provider_id,
        payment_id=None if settled.payment_id is None else str(settled.payment_id),
        reason=settled.closed_reason,
        actor=message.actor,
    )
    return world.save(settled)


@HANDLERS.on(PostMovement, lambda m: [Ref(Payment, m.data.payment_id, shared=True)])
def post_movement(world: World, message: Message[PostMovement]) -> None:
    """Once, however often it is found: the entries' ids follow from the movement they tell of."""
    told = message.data
    payment = world.get(Payment, told.payment_id)
    if payment is None:
        raise NotFoundError("payment-not-found", f"the provider moved money of an unknown payment: {told.reference}")
    post(world, ledger.exchanged(payment, told.exchanged_minor, told.exchange, comes=told.comes))
    post(world, ledger.fee(payment, told.fee_minor, told.reference, told.currency))


def _own(world: World, reconciliation_id: UUID, tries: int) -> Reconciliation:
    run = world.get(Reconciliation, reconciliation_id)
    if run is None or not belongs_to(run, tries):
        raise ConflictError(TAKEN_OVER, "somebody else has this reconciliation by now")
    return run
