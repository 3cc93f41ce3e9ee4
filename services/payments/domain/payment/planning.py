"""What the provider is asked for a payment, and when the payment is looked at again if nothing comes of it. Pure."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from libs.common.contracts import Event
from libs.common.errors import ConflictError
from services.payments.domain.payment.attempt import Attempt
from services.payments.domain.payment.payment import WORKING, Decision, Payment, S, Taken, move
from services.payments.domain.provider.operation import (
    NO_LEASE,
    PLANNED_LEASE,
    RETURN_URL,
    Operation,
    OperationKind,
    OperationState,
    confirmation,
    idempotency_key,
    operation_id,
)

FIRST_LOOK = timedelta(seconds=2)
LAST_LOOK = timedelta(seconds=60)
"""How soon, and at least how often, the provider is asked whether a payer has done their part."""
STRANDED = timedelta(seconds=60)
"""After so long without an answer it is made sure that the operation is still there."""
STRANDED_LAST = timedelta(hours=1)
EXPIRY_GRACE = timedelta(minutes=1)
"""How long after a hold's end the provider is asked whether it has ended."""
UNTOLD_EXPIRY = timedelta(days=1)
"""How often, where nobody has said when it ends."""


def take(payment: Payment, amount_minor: int, *, final: bool, now: datetime, events: tuple[Event, ...] = ()) -> Decision:
    """Capture so much of what is held; what a final capture leaves is let go."""
    payment = replace(
        move(payment, S.CAPTURING),
        capturing_minor=amount_minor,
        capturing_final=final or amount_minor == payment.held_minor,
        capture_count=payment.capture_count + 1,
    )
    return work(payment, events, now)


def let_go(payment: Payment, events: tuple[Event, ...], now: datetime) -> Decision:
    """Release what is held. Where some was taken, the provider's payment ends with a capture of nothing more."""
    if payment.captured_minor > 0:
        return take(payment, 0, final=True, events=events, now=now)
    return work(move(payment, S.VOIDING), events, now)


def work(
    payment: Payment,
    events: tuple[Event, ...],
    now: datetime,
    *,
    attempts: tuple[Attempt, ...] = (),
    taken: Taken | None = None,
) -> Decision:
    """Plan what the payment's state calls for, if it calls for anything, and when to look at it again if nothing happens."""
    if payment.state not in WORKING:
        at_rest = replace(payment, operation_id=None, operation_at=None, look_at=first_look(payment, now), look_count=0)
        return Decision(at_rest, events, None, attempts, taken)
    kind, ordinal = _wanted(payment)
    created_at = payment.operation_at if kind is OperationKind.CONFIRM else None
    payment = awaiting(payment, operation_id(payment.id, kind, ordinal, 1), 1, now)
    if created_at is not None:
        # It may have been sent right after its create (`operation.following`), long before this is recorded.
        payment = replace(payment, operation_at=created_at)
    return Decision(payment, events, _operation(payment, kind, ordinal, now), attempts, taken)


def hand_over(decision: Decision, now: datetime) -> Decision:
    """The same of a process that makes no calls: whoever does may take up at once what it plans."""
    if decision.planned is None:
        return decision
    return replace(decision, planned=replace(decision.planned, due_at=now + NO_LEASE))


def is_look_due(payment: Payment, now: datetime) -> bool:
    """Whether nothing was heard of it for so long that it is to be looked at."""
    return payment.look_at is not None and payment.look_at <= now


def awaiting(payment: Payment, operation: UUID, operation_attempt: int, now: datetime) -> Payment:
    """The payment as it waits for this operation, which was planned just now."""
    return replace(
        payment,
        operation_id=operation,
        operation_attempt=operation_attempt,
        operation_at=now,
        look_at=now + STRANDED,
        look_count=0,
    )


def first_look(payment: Payment, now: datetime) -> datetime | None:
    """When a payment that has no open operation is to be looked at, if nothing happens before."""
    match payment.state:
        case S.REQUIRES_ACTION:
            return now + FIRST_LOOK
        case S.AUTHORIZED:
            return now + UNTOLD_EXPIRY if payment.expires_at is None else max(payment.expires_at, now) + EXPIRY_GRACE
        case S.AUTHORIZING | S.CAPTURING | S.VOIDING | S.UNKNOWN:
            return now + STRANDED
        case S.CREATED | S.CAPTURED | S.VOIDED | S.DECLINED | S.EXPIRED:
            return None


def look_again(payment: Payment, now: datetime) -> Payment:
    """Nothing has changed: look again, after a while that doubles."""
    match payment.state:
        case S.REQUIRES_ACTION:
            wait = min(FIRST_LOOK * 2 ** min(payment.look_count + 1, 10), LAST_LOOK)
        case S.AUTHORIZING | S.CAPTURING | S.VOIDING | S.UNKNOWN:
            wait = min(STRANDED * 2 ** min(payment.look_count + 1, 10), STRANDED_LAST)
        case S.AUTHORIZED | S.CREATED | S.CAPTURED | S.VOIDED | S.DECLINED | S.EXPIRED:
            return replace(payment, look_at=first_look(payment, now), look_count=payment.look_count + 1)
    return replace(payment, look_at=now + wait, look_count=payment.look_count + 1)


def _wanted(payment: Payment) -> tuple[OperationKind, int]:
    """What a working payment's state calls for, and which one of its kind."""
    if payment.state is S.CAPTURING:
        return OperationKind.CAPTURE, payment.capture_count
    if payment.state is S.VOIDING:
        return OperationKind.CANCEL, max(1, payment.attempt_count)
    return (OperationKind.CREATE, 1) if payment.intent_id is None else (OperationKind.CONFIRM, payment.attempt_count)


def plan(payment: Payment, now: datetime) -> Operation:
    """The operation that a payment waits for, made again: a function of the payment, so that a lost row comes back.

    Its id says which it was, also when the payment's state does not say any more. Raises ConflictError when it waits for
    none.
    """
    number = max(1, payment.attempt_count)
    kinds = {
        OperationKind.CREATE: 1,
        OperationKind.CONFIRM: number,
        OperationKind.CAPTURE: payment.capture_count,
        OperationKind.CANCEL: number,
    }
    for kind, ordinal in kinds.items():
        if operation_id(payment.id, kind, ordinal, payment.operation_attempt) == payment.operation_id:
            return _operation(payment, kind, ordinal, now)
    raise ConflictError("nothing-to-plan", f"a payment that is {payment.state} waits for no operation")


def _operation(payment: Payment, kind: OperationKind, ordinal: int, now: datetime) -> Operation:
    identity = operation_id(payment.id, kind, ordinal, payment.operation_attempt)
    return Operation(
        tenant_id=payment.tenant_id,
        id=identity,
        payment_id=payment.id,
        kind=kind,
        ordinal=ordinal,
        attempt=payment.operation_attempt,
        idempotency_key=idempotency_key(identity),
        request=_parameters(payment, kind),
        total_minor=payment.captured_minor + payment.capturing_minor if kind is OperationKind.CAPTURE else None,
        state=OperationState.SENDING,
        tries=1,
        first_send_at=payment.operation_at or now,
        due_at=now + PLANNED_LEASE,
    )


def _parameters(payment: Payment, kind: OperationKind) -> dict[str, Any]:
    intent = {"intent_id": payment.intent_id}
    if kind is OperationKind.CAPTURE:
        return {**intent, "amount_minor": payment.capturing_minor, "final": payment.capturing_final}
    if kind is OperationKind.CANCEL:
        return intent
    if kind is OperationKind.CONFIRM:
        return confirmation(payment.intent_id, payment.method, payment.return_url)
    return {
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
        "method": payment.method,
        "capture": "manual",
        "confirmation": payment.confirmation,
        **({"challenge": True} if payment.challenge else {}),
        **({RETURN_URL: payment.return_url} if payment.return_url else {}),
        "metadata": {
            "tenant_id": str(payment.tenant_id),
            "payment_id": str(payment.id),
            "checkout_id": str(payment.checkout_id),
            "order_id": str(payment.order_id),
            "quote_hash": payment.quote_hash,
        },
    }
