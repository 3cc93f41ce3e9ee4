"""What calls to the provider came to."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import structlog

from libs.common.contracts.payments import ProviderCalled
from libs.common.decision import Message, Ref, World
from libs.common.errors import NotFoundError
from services.payments.domain.money import refund_recording
from services.payments.domain.money.refund import Refund
from services.payments.domain.payment import recording
from services.payments.domain.payment.attempt import Attempt, attempt_id
from services.payments.domain.payment.payment import Payment
from services.payments.domain.provider.operation import Operation, OperationKind, counts
from services.payments.domain.provider.outcome import Outcome, Succeeded, name_of
from services.payments.handlers.payments import save_payment
from services.payments.handlers.refunds import save_refund
from services.payments.handlers.table import HANDLERS

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that was made to the provider, when, and how long it took."""

    kind: str
    outcome: str
    started_at: datetime
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What became of the confirm that was sent as soon as its create had been answered."""

    made: Succeeded
    """The create's own answer."""
    outcome: Outcome
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOutcome:
    """Take note of what became of one try of an operation. No event: it comes from our own executor."""

    payment_id: UUID
    operation_id: UUID
    kind: OperationKind
    ordinal: int
    refund_id: UUID | None
    tries: int
    outcome: Outcome
    calls: tuple[Call, ...]
    followed: Followed | None = None

    @classmethod
    def of(
        cls, operation: Operation, outcome: Outcome, calls: Iterable[Call] = (), followed: Followed | None = None
    ) -> "RecordOutcome":
        """What this try of the operation came to."""
        return cls(
            payment_id=operation.payment_id,
            operation_id=operation.id,
            kind=operation.kind,
            ordinal=operation.ordinal,
            refund_id=operation.refund_id,
            tries=operation.tries,
            outcome=outcome,
            calls=tuple(calls),
            followed=followed,
        )


def _touched(message: Message[RecordOutcome]) -> Iterable[Ref]:
    command = message.data
    yield Ref(Payment, command.payment_id)
    yield Ref(Operation, command.operation_id)
    if command.refund_id is not None:
        yield Ref(Refund, command.refund_id)
    elif command.kind in recording.OF_AN_ATTEMPT:
        yield Ref(Attempt, attempt_id(command.payment_id, command.ordinal))


@HANDLERS.on(RecordOutcome, _touched)
def record_outcome(world: World, message: Message[RecordOutcome]) -> bool:
    """Answers whether it counted: a late twin's outcome changes nothing."""
    command = message.data
    payment, operation = world.get(Payment, command.payment_id), world.get(Operation, command.operation_id)
    if payment is None or operation is None or not counts(operation, command.tries):
        return False
    called = [_called(payment, operation, call) for call in command.calls]
    if command.refund_id is None:
        after = _record_on_payment(world, message, payment, operation, called)
    else:
        after = _record_on_refund(world, message, payment, operation, command.refund_id, called)
    if operation.resolution is not None:
        log.warning(
            "operation.resolved",
            operation_id=str(operation.id),
            payment_id=str(payment.id),
            verdict=operation.resolution.verdict,
            reason=operation.resolution.reason,
            actor=operation.resolution.by,
            state=after.state,
            outcome=name_of(command.outcome),
        )
    return True


def _record_on_payment(
    world: World, message: Message[RecordOutcome], payment: Payment, operation: Operation, called: Iterable[ProviderCalled]
) -> Operation:
    command = message.data
    if command.followed is not None:
        return _record_both(world, message, payment, operation, command.followed, called)
    attempt = None
    if command.kind in recording.OF_AN_ATTEMPT:
        attempt = world.get(Attempt, attempt_id(payment.id, command.ordinal))
    recorded = recording.record(payment, operation, attempt, command.outcome, world.now)
    world.save(recorded.operation)
    save_payment(world, message, recorded.decision, *called)
    return recorded.operation


def _record_both(
    world: World,
    message: Message[RecordOutcome],
    payment: Payment,
    operation: Operation,
    followed: Followed,
    called: Iterable[ProviderCalled],
) -> Operation:
    created, recorded = recording.record_both(payment, operation, followed.made, followed.outcome, world.now)
    confirm = replace(recorded.operation, traceparent=message.traceparent)
    world.save(created)
    world.save(confirm)
    save_payment(world, message, recorded.decision, *called, *(_called(payment, confirm, call) for call in followed.calls))
    return created


def _record_on_refund(
    world: World,
    message: Message[RecordOutcome],
    payment: Payment,
    operation: Operation,
    refund_id: UUID,
    called: Iterable[ProviderCalled],
) -> Operation:
    ours = world.get(Refund, refund_id)
    if ours is None:
        raise NotFoundError("refund-not-found", f"a call was made for refund {refund_id}, which is not there")
    payment = world.save(payment, *called)
    recorded = refund_recording.record(payment, ours, operation, message.data.tries, message.data.outcome, world.now)
    if recorded is None:
        return operation
    world.save(recorded.operation)
    save_refund(world, message, recorded.decision)
    return recorded.operation


def _called(payment: Payment, operation: Operation, call: Call) -> ProviderCalled:
    return ProviderCalled(
        payment_id=payment.id,
        checkout_id=payment.checkout_id,
        kind=call.kind,
        attempt=operation.attempt,
        outcome=call.outcome,
        duration_ms=call.duration_ms,
        started_at=call.started_at,
    )
