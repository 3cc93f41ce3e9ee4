"""What happens to refunds: asked for by checkout, by the tenant's staff and by ourselves, and told of by the provider."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import structlog

from libs.common.contracts.checkout import RefundRequested
from libs.common.decision import Message, Ref, World
from libs.common.errors import NotFoundError
from libs.common.sensitive import without_sensitive
from services.payments.domain.money import refund_asking
from services.payments.domain.money.refund import Refund, RefundDecision, close, found_refund_id, refund_operation_id
from services.payments.domain.money.refund_recording import observe
from services.payments.domain.payment.payment import Payment
from services.payments.domain.provider.operation import NO_LEASE, Operation, hurry
from services.payments.domain.provider.outcome import SeenRefund
from services.payments.handlers.ledger import post
from services.payments.handlers.table import HANDLERS

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRefund:
    """Give so much of a captured payment back, or all that is left of it."""

    payment_id: UUID
    refund_id: UUID
    amount_minor: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskForOrder:
    """Ask checkout for the order of a payment whose money was taken, for nothing is heard of one."""

    payment_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviveRefund:
    """Plan a refund's call again if its row was lost."""

    payment_id: UUID
    refund_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseRefund:
    """Look no more at a refund that failed, and say how its buyer was seen to."""

    refund_id: UUID
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveRefund:
    """Take note of where the provider says that a refund stands."""

    payment_id: UUID
    seen: SeenRefund

    @property
    def refund_id(self) -> UUID:
        """Ours by the provider's metadata; one without was made elsewhere."""
        try:
            return UUID(self.seen.metadata["refund_id"])
        except (KeyError, ValueError):
            return found_refund_id(self.payment_id, self.seen.provider_id)


def save_refund(world: World, message: Message[Any], decision: RefundDecision) -> Refund:
    """Store a refund, its payment's numbers, the call that it plans, and its entries; answers the refund as stored."""
    if decision.payment != world.get(Payment, decision.payment.id):
        world.save(decision.payment)
    refund = world.save(decision.refund, *decision.events)
    if decision.planned is not None:
        world.save(replace(decision.planned, traceparent=message.traceparent))
    post(world, decision.entries)
    return refund


@HANDLERS.on(RefundRequested, lambda m: [Ref(Payment, m.data.payment_id), Ref(Refund, m.data.refund_id)])
def request_order_refund(world: World, message: Message[RefundRequested]) -> None:
    """Give a part of an order's payment back; what cannot be is answered with `refund.failed`."""
    asked = message.data
    payment = world.get(Payment, asked.payment_id)
    if payment is None:
        # The order says that its money was taken, so the row was lost: a person must see this.
        raise NotFoundError("payment-not-found", f"refund {asked.refund_id} is of an unknown payment")
    decision = refund_asking.request(payment, world.get(Refund, asked.refund_id), asked, world.now)
    if decision is not None:
        save_refund(world, message, decision)


@HANDLERS.on(RequestRefund, lambda m: [Ref(Payment, m.data.payment_id), Ref(Refund, m.data.refund_id)])
def request_refund(world: World, message: Message[RequestRefund]) -> Refund:
    """The same from our own API, which refuses at once what cannot be."""
    asked = message.data
    payment, known = world.get(Payment, asked.payment_id), world.get(Refund, asked.refund_id)
    if payment is None:
        raise NotFoundError("payment-not-found", "there is no such payment for you")
    if known is not None:
        return known
    decision = refund_asking.plan_refund(payment, asked.refund_id, asked.amount_minor, asked.reason, world.now, lease=NO_LEASE)
    return save_refund(world, message, decision)


@HANDLERS.on(AskForOrder, lambda m: [Ref(Payment, m.data.payment_id)])
def ask_for_order(world: World, message: Message[AskForOrder]) -> bool:
    """Answers whether there was anything to ask. What is looked at is the payment as it is now."""
    payment = world.get(Payment, message.data.payment_id)
    decision = refund_asking.ask_for_order(payment, world.new_id(), world.now) if payment else None
    if decision is not None:
        world.save(*decision)
    return decision is not None


@HANDLERS.on(CloseRefund, lambda m: [Ref(Refund, m.data.refund_id)])
def close_refund(world: World, message: Message[CloseRefund]) -> Refund:
    """Answers the refund as it is kept. No money moves. Raises ConflictError for one that did not fail, or is closed."""
    known = world.get(Refund, message.data.refund_id)
    if known is None:
        raise NotFoundError("refund-not-found", "there is no such refund for you")
    closed = close(known, message.actor, without_sensitive(message.data.reason), world.now)
    log.warning("refund.closed", refund_id=str(closed.id), reason=closed.closed_reason, actor=message.actor)
    return world.save(closed)


def _asked_for(message: Message[ObserveRefund] | Message[ReviveRefund]) -> Iterable[Ref]:
    return Ref(Payment, message.data.payment_id), Ref(Refund, message.data.refund_id)


def _its_call(world: World, message: Message[ObserveRefund] | Message[ReviveRefund]) -> Iterable[Ref]:
    """The operation of the refund's present key."""
    refund = world.get(Refund, message.data.refund_id)
    return [Ref(Operation, refund_operation_id(refund.id, refund.attempt))] if refund else []


@HANDLERS.on(ReviveRefund, _asked_for, more=_its_call)
def revive_refund(world: World, message: Message[ReviveRefund]) -> bool:
    """Answers whether the call had been lost, and is planned again under its key."""
    payment, refund = world.get(Payment, message.data.payment_id), world.get(Refund, message.data.refund_id)
    if payment is None or refund is None:
        return False
    planned = refund_asking.revive(payment, refund, _call_of(world, refund), world.now)
    if planned is None:
        return False
    log.warning("refund.revived", refund_id=str(refund.id), action="its call was lost, and is planned again under its key")
    world.save(replace(planned, traceparent=message.traceparent))
    return True


@HANDLERS.on(ObserveRefund, _asked_for, more=_its_call)
def observe_refund(world: World, message: Message[ObserveRefund]) -> bool:
    """Answers whether it changed anything. A call that may be in flight is its own executor's to conclude upon."""
    command, seen = message.data, message.data.seen
    payment, refund = world.get(Payment, command.payment_id), world.get(Refund, command.refund_id)
    if payment is None:
        raise NotFoundError("payment-not-found", f"the provider tells of a refund of an unknown payment: {seen.provider_id}")
    call = _call_of(world, refund) if refund else None
    decision = observe(payment, refund, call, command.refund_id, seen, world.now)
    if decision is not None:
        save_refund(world, message, decision)
        return True
    hurried = hurry(call, world.now) if call else None
    if hurried is not None:
        world.save(hurried)
    return hurried is not None


def _call_of(world: World, refund: Refund) -> Operation | None:
    return world.get(Operation, refund_operation_id(refund.id, refund.attempt))
