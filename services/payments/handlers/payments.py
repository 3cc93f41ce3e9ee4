"""A payment: requested, voided, captured; by the checkout and its order, by a shipment, by hand."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn
from uuid import UUID

import structlog

from libs.common.contracts import Event
from libs.common.contracts.checkout import (
    OrderCanceled,
    OrderConfirmed,
    OrderStatusTold,
    PaymentRequested,
    PaymentVoidRequested,
)
from libs.common.contracts.fulfilment import ShipmentDispatched
from libs.common.contracts.identity import TenantUpdated
from libs.common.contracts.payments import TenantProvisioned, TenantSettled
from libs.common.decision import Message, Ref, World
from libs.common.errors import ConflictError, NotFoundError, NotYetError, UnavailableError
from libs.common.messaging.erasing import SettleTenant
from libs.common.sensitive import without_sensitive
from libs.common.tenancy import SETTLED, SETTLING, Tenant, project_tenant, tenant_ref
from services.payments.domain.money.ledger import of_capture
from services.payments.domain.money.refund import Refund, RefundDecision
from services.payments.domain.money.refund_asking import return_for_canceled_order, return_orphaned
from services.payments.domain.money.refund_recording import is_of
from services.payments.domain.payment import asking, recording
from services.payments.domain.payment.payment import Decision, OrderPayment, Payment
from services.payments.domain.payment.planning import hand_over
from services.payments.domain.provider.concluding import REMEDIES, Obstacle, obstacle
from services.payments.domain.provider.operation import Operation, Resolution, Verdict, resolve
from services.payments.domain.provider.outcome import Outcome, SeenRefund
from services.payments.handlers.ledger import post
from services.payments.handlers.refunds import save_refund
from services.payments.handlers.table import HANDLERS

CANCELED = "canceled"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturePayment:
    """Take so much of what is held, or all of it; what a final capture leaves is let go."""

    payment_id: UUID
    amount_minor: int | None
    final: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VoidPayment:
    """Let go of what is held."""

    payment_id: UUID
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the object of an operation stood at the provider when somebody asked to have its outcome resolved."""

    operation_id: UUID
    refund_id: UUID | None
    seen: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvePayment:
    """Have unknown outcomes looked into at once, with what a person says of them, if that can bring them to an end."""

    payment_id: UUID
    readings: tuple[Reading, ...]
    verdict: Verdict
    reason: str


def save_payment(world: World, message: Message[Any], decision: Decision, *before: Event) -> Payment:
    """Store a payment, all that was decided with it, and what follows of it for money; answers the payment as stored.

    The operation that it plans carries on the message's trace.
    """
    payment = world.save(decision.payment, *before, *decision.events)
    for attempt in decision.attempts:
        world.save(attempt)
    if decision.planned is not None:
        world.save(replace(decision.planned, traceparent=message.traceparent))
    post(world, of_capture(payment, decision.taken))
    owed = return_for_canceled_order(payment, world.now)
    if owed is not None:
        save_refund(world, message, owed)
    return payment


def known_payment(world: World, payment_id: UUID) -> Payment:
    """A payment that somebody has been told of. Raises NotFoundError."""
    payment = world.get(Payment, payment_id)
    if payment is None:
        raise NotFoundError("payment-not-found", f"there is no payment {payment_id}")
    return payment


# --- By the checkout and its order --------------------------------------------------------------------------------


@HANDLERS.on(PaymentRequested, lambda m: [Ref(Payment, m.data.payment_id), tenant_ref(m)])
def request_payment(world: World, message: Message[PaymentRequested]) -> None:
    """Begin a payment, unless it is there."""
    if world.get(Tenant, world.tenant_id) is None:
        raise NotYetError("unknown-tenant", f"tenant {world.tenant_id} is not known here yet")
    asked = message.data
    known = world.get(Payment, asked.payment_id)
    decision = asking.request(known, world.tenant_id, asked, world.now)
    if decision is None:
        return
    save_payment(world, message, decision)
    order = asking.paid_at_shipment(world.tenant_id, asked)
    if order is not None:
        world.save(order)


@HANDLERS.on(PaymentVoidRequested, lambda m: [Ref(Payment, m.data.payment_id)])
def void_requested_payment(world: World, message: Message[PaymentVoidRequested]) -> None:
    """Hold nothing for this checkout, as soon as that can be."""
    known = world.get(Payment, message.data.payment_id)
    decision = asking.void(known, world.tenant_id, message.data, world.now)
    if decision is not None:
        save_payment(world, message, decision)


@HANDLERS.on(OrderConfirmed, lambda m: [Ref(Payment, m.data.payment_id)])
def confirm_order(world: World, message: Message[OrderConfirmed]) -> None:
    """Take the money that is held for the order, unless its shipment decides."""
    if message.data.totals.total_minor == 0:
        return  # nothing was asked of us
    # An order was confirmed upon our own word, so if there is no row it was lost: a person must see this.
    decision = asking.confirm_order(known_payment(world, message.data.payment_id), world.now)
    if decision is not None:
        save_payment(world, message, decision)


@HANDLERS.on(OrderCanceled, lambda m: [Ref(Payment, m.data.payment_id)])
def cancel_order(world: World, message: Message[OrderCanceled]) -> None:
    """Let go of the money that is held for the order, and give back what was taken."""
    if message.data.total_minor == 0:
        return
    decision = asking.cancel_order(known_payment(world, message.data.payment_id), message.data.reason, world.now)
    if decision is not None:
        save_payment(world, message, decision)


@HANDLERS.on(OrderStatusTold, lambda m: [Ref(Payment, m.data.payment_id)])
def take_order_status(world: World, message: Message[OrderStatusTold]) -> None:
    """Checkout's word on the order that was asked for: the same as its own event, should that be late or lost.

    Where no order stands on the money, it goes back.
    """
    payment = known_payment(world, message.data.payment_id)
    match message.data.status:
        case "confirmed":
            decision = asking.confirm_order(payment, world.now)
        case "canceled":
            decision = asking.cancel_order(payment, CANCELED, world.now)
            if decision is None:
                # Known already, and yet there was money to ask about: what gave it back has failed.
                _return(world, message, return_for_canceled_order(payment, world.now))
        case "none":
            decision = None
            _return(world, message, return_orphaned(payment, world.now))
    if decision is not None:
        save_payment(world, message, decision)


def _return(world: World, message: Message[OrderStatusTold], owed: RefundDecision | None) -> None:
    if owed is not None:
        save_refund(world, message, owed)
        log.warning(
            "orphan_money.returned",
            payment_id=str(owed.payment.id),
            amount_minor=owed.refund.amount_minor,
            action="no order stands on it: a refund is planned",
        )


def _paid_with(world: World, message: Message[ShipmentDispatched]) -> Iterable[Ref]:
    order = world.get(OrderPayment, message.data.order_id)
    return [Ref(Payment, order.payment_id)] if order else []


@HANDLERS.on(ShipmentDispatched, lambda m: [Ref(OrderPayment, m.data.order_id, shared=True)], more=_paid_with)
def dispatch(world: World, message: Message[ShipmentDispatched]) -> None:
    """Take the money of an order that is paid when it leaves the house. Of any other there is nothing to do."""
    order = world.get(OrderPayment, message.data.order_id)
    payment = world.get(Payment, order.payment_id) if order else None
    decision = asking.dispatch(payment, world.now) if payment else None
    if decision is not None:
        save_payment(world, message, decision)


# --- By hand ------------------------------------------------------------------------------------------------------


@HANDLERS.on(CapturePayment, lambda m: [Ref(Payment, m.data.payment_id)])
def capture_payment(world: World, message: Message[CapturePayment]) -> Payment:
    """Answers the payment as it is then."""
    command = message.data
    payment = known_payment(world, command.payment_id)
    decision = asking.capture(payment, command.amount_minor, final=command.final, now=world.now)
    return save_payment(world, message, hand_over(decision, world.now))


@HANDLERS.on(VoidPayment, lambda m: [Ref(Payment, m.data.payment_id)])
def void_payment(world: World, message: Message[VoidPayment]) -> Payment:
    """Answers the payment as it is then."""
    payment = known_payment(world, message.data.payment_id)
    decision = asking.void_by_hand(payment, message.data.reason, world.now)
    return payment if decision is None else save_payment(world, message, hand_over(decision, world.now))


def _unknown_ones(message: Message[ResolvePayment]) -> Iterable[Ref]:
    yield Ref(Payment, message.data.payment_id)
    for reading in message.data.readings:
        yield Ref(Operation, reading.operation_id)
        if reading.refund_id is not None:
            yield Ref(Refund, reading.refund_id, shared=True)


@HANDLERS.on(ResolvePayment, _unknown_ones)
def resolve_payment(world: World, message: Message[ResolvePayment]) -> Payment:
    """Answers the payment, whose outcome is known once the provider has been read.

    Raises ConflictError if it is known, or if no look could bring it to an end; UnavailableError if nobody can tell.
    """
    command = message.data
    payment = known_payment(world, command.payment_id)
    resolution = Resolution(verdict=command.verdict, reason=without_sensitive(command.reason), by=message.actor)
    asked: list[tuple[Operation, Obstacle | None]] = []
    for reading in command.readings:
        operation = world.get(Operation, reading.operation_id)
        resolved = resolve(operation, resolution, world.now) if operation else None
        if resolved is not None:
            as_asked = _is_as_asked(world, payment, resolved, reading)
            asked.append((resolved, obstacle(resolved, reading.seen, as_asked=as_asked)))
    if not asked:
        raise ConflictError("nothing-unknown", "no outcome of this payment is unknown", state=str(payment.state))
    obstacles = [each for _, each in asked if each is not None]
    if len(obstacles) == len(asked):
        _say_what_is_in_the_way(payment, obstacles)
    for operation in (each for each, hindrance in asked if hindrance is None):
        log.warning(
            "operation.resolution_asked",
            operation_id=str(operation.id),
            payment_id=str(payment.id),
            verdict=command.verdict,
            reason=resolution.reason,
            actor=message.actor,
            action="the provider is read before it counts",
        )
        world.save(operation)
    return payment


def _is_as_asked(world: World, payment: Payment, operation: Operation, reading: Reading) -> bool:
    """Whether what was read is of the money that the operation is about."""
    if reading.refund_id is None:
        return recording.is_as_asked(payment, operation, reading.seen)
    refund = world.get(Refund, reading.refund_id)
    return not isinstance(reading.seen, SeenRefund) or (refund is not None and is_of(reading.seen, payment, refund))


def _say_what_is_in_the_way(payment: Payment, obstacles: Sequence[Obstacle]) -> NoReturn:
    worst = min(obstacles, key=list(Obstacle).index)
    if worst is Obstacle.UNREADABLE:
        raise UnavailableError(str(worst), REMEDIES[worst], state=str(payment.state), retry_after=10)
    raise ConflictError(str(worst), REMEDIES[worst], state=str(payment.state))


# --- Tenants ------------------------------------------------------------------------------------------------------


@HANDLERS.on(TenantUpdated, lambda m: [Ref(Tenant, m.data.tenant_id)])
def update_tenant(world: World, message: Message[TenantUpdated]) -> None:
    """Know the tenant, and say so."""
    project_tenant(
        world,
        message,
        lambda tenant_id, version: TenantProvisioned(tenant_id=tenant_id, service="payments", tenant_version=version),
        erased_after={"checkout"},
    )


@HANDLERS.on(SettleTenant, lambda m: [Ref(Tenant, m.tenant_id)])
def settle_tenant(world: World, _message: Message[SettleTenant]) -> None:
    """Say, once, that all of its money has come to its end: checkout, which may be asked for an order till then, can go."""
    tenant = world.get(Tenant, world.tenant_id)
    if tenant is not None and tenant.status == SETTLING:
        told = TenantSettled(tenant_id=tenant.tenant_id, service="payments", tenant_version=tenant.tenant_version)
        world.save(replace(tenant, status=SETTLED), told)
