"""A payment: requested, voided, captured, and what its calls to the provider came to."""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from libs.common.contracts import Event
from libs.common.contracts.checkout import OrderConfirmed, PaymentRequested, PaymentVoidRequested
from libs.common.contracts.identity import TenantUpdated
from libs.common.contracts.payments import ProviderCalled, TenantProvisioned
from libs.common.errors import NotFoundError, NotYetError
from libs.common.messaging.decision import Message, Ref, World
from libs.common.tenancy import Tenant, project_tenant, tenant_ref
from services.payments.domain import payment as machine
from services.payments.domain.operation import Operation
from services.payments.domain.outcome import Outcome
from services.payments.domain.payment import Decision, Payment
from services.payments.domain.recording import record
from services.payments.handlers.table import HANDLERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that was made to the provider, and how long it took."""

    kind: str
    outcome: str
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOutcome:
    """Take note of what became of one try of an operation. No event: it comes from our own executor."""

    payment_id: UUID
    operation_id: UUID
    tries: int
    outcome: Outcome
    calls: tuple[Call, ...]


def _save(world: World, message: Message[Any], decision: Decision, *before: Event) -> None:
    """Store the payment, what it publishes, and the operation it plans, which carries on the message's trace."""
    world.save(decision.payment, *before, *decision.events)
    if decision.planned is not None:
        world.save(replace(decision.planned, traceparent=message.traceparent))


@HANDLERS.on(PaymentRequested, lambda m: [Ref(Payment, m.data.payment_id), tenant_ref(m)])
def request_payment(world: World, message: Message[PaymentRequested]) -> None:
    """Begin a payment, unless it is there."""
    if world.get(Tenant, world.tenant_id) is None:
        raise NotYetError("unknown-tenant", f"tenant {world.tenant_id} is not known here yet")
    known = world.get(Payment, message.data.payment_id)
    decision = machine.request(known, world.tenant_id, message.data, world.now)
    if decision is not None:
        _save(world, message, decision)


@HANDLERS.on(PaymentVoidRequested, lambda m: [Ref(Payment, m.data.payment_id)])
def void_payment(world: World, message: Message[PaymentVoidRequested]) -> None:
    """Hold nothing for this checkout, as soon as that can be."""
    known = world.get(Payment, message.data.payment_id)
    decision = machine.void(known, world.tenant_id, message.data, world.now)
    if decision is not None:
        _save(world, message, decision)


@HANDLERS.on(OrderConfirmed, lambda m: [Ref(Payment, m.data.payment_id)])
def capture_payment(world: World, message: Message[OrderConfirmed]) -> None:
    """Take the money that is held for the order."""
    payment = world.get(Payment, message.data.payment_id)
    if payment is None:
        # An order was confirmed upon our own word, so the row was lost: a person must see this.
        raise NotFoundError("payment-not-found", f"order {message.data.order_id} was confirmed for an unknown payment")
    decision = machine.capture(payment, world.now)
    if decision is not None:
        _save(world, message, decision)


@HANDLERS.on(RecordOutcome, lambda m: [Ref(Payment, m.data.payment_id), Ref(Operation, m.data.operation_id)])
def record_outcome(world: World, message: Message[RecordOutcome]) -> bool:
    """Answers whether it counted: a late twin's outcome changes nothing."""
    command = message.data
    payment, operation = world.get(Payment, command.payment_id), world.get(Operation, command.operation_id)
    if payment is None or operation is None:
        return False
    recorded = record(payment, operation, command.tries, command.outcome, world.now)
    if recorded is None:
        return False
    world.save(recorded.operation)
    _save(world, message, recorded.decision, *(_provider_called(payment, operation, call) for call in command.calls))
    return True


def _provider_called(payment: Payment, operation: Operation, call: Call) -> ProviderCalled:
    return ProviderCalled(
        payment_id=payment.id,
        checkout_id=payment.checkout_id,
        kind=call.kind,
        attempt=operation.attempt,
        outcome=call.outcome,
        duration_ms=call.duration_ms,
    )


@HANDLERS.on(TenantUpdated, lambda m: [Ref(Tenant, m.data.tenant_id)])
def update_tenant(world: World, message: Message[TenantUpdated]) -> None:
    """Know the tenant, and say so."""
    project_tenant(
        world,
        message,
        lambda tenant_id, version: TenantProvisioned(tenant_id=tenant_id, service="payments", tenant_version=version),
    )
