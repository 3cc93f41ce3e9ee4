"""What is asked of refunds: by the checkout, by the tenant's staff, and by ourselves where money is nobody's. Pure."""

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID, uuid5

from libs.common.contracts.checkout import RefundRequested
from libs.common.contracts.payments import OrderStatusAsked
from libs.common.errors import ConflictError, RejectedError
from libs.common.sensitive import without_sensitive
from services.payments.domain.money.refund import (
    ASKING,
    WAITS,
    R,
    Refund,
    RefundDecision,
    failed_event,
    left_minor,
    refund_operation_id,
)
from services.payments.domain.payment.asking import AMOUNT_NOT_PAYABLE, is_payable, kept_minor
from services.payments.domain.payment.payment import OrderStanding, Payment, PaymentState
from services.payments.domain.provider.operation import (
    NO_LEASE,
    PLANNED_LEASE,
    Operation,
    OperationKind,
    OperationState,
    idempotency_key,
)

EXCEEDS_CAPTURE = "refund-exceeds-capture"
NOT_CAPTURED = "payment-not-captured"
OTHER_CURRENCY = "refund-currency"
ORPHANED = "captured for no order"
ORDER_CANCELED = "order-canceled"


def request(payment: Payment, known: Refund | None, asked: RefundRequested, now: datetime) -> RefundDecision | None:
    """Give a part of an order's payment back; what cannot be is refused. None: this was asked before."""
    if known is not None:
        return None
    if asked.currency != payment.currency:
        return refuse(payment, asked.refund_id, asked.amount_minor, asked.reason, OTHER_CURRENCY, now)
    try:
        return plan_refund(payment, asked.refund_id, asked.amount_minor, asked.reason, now)
    except (ConflictError, RejectedError) as error:
        return refuse(payment, asked.refund_id, asked.amount_minor, asked.reason, error.code, now)


def plan_refund(
    payment: Payment,
    refund_id: UUID,
    amount_minor: int | None,
    reason: str,
    now: datetime,
    *,
    lease: timedelta = PLANNED_LEASE,
) -> RefundDecision:
    """Reserve the amount and plan the call; no amount is all that is left.

    Raises ConflictError if there is not so much, and RejectedError if it is no amount that the provider can pay.
    `lease`: how long the call is the planning process's own; none, where that process makes no calls.
    """
    if amount_minor is not None and not is_payable(amount_minor, payment.currency):
        raise RejectedError(AMOUNT_NOT_PAYABLE, f"{amount_minor} of {payment.currency} is no amount that can be paid")
    if payment.captured_minor == 0:
        raise ConflictError(NOT_CAPTURED, f"nothing was captured of a payment that is {payment.state}", state=str(payment.state))
    left = left_minor(payment)
    amount_minor = left if amount_minor is None else amount_minor
    if amount_minor > left or left == 0:
        raise ConflictError(EXCEEDS_CAPTURE, f"of this payment, {left} may still be refunded", refundable_minor=left)
    refund = begun(payment, refund_id, amount_minor, reason, now)
    reserved = replace(payment, refunding_minor=payment.refunding_minor + amount_minor)
    return RefundDecision(payment=reserved, refund=refund, planned=operation_of(reserved, refund, now, lease))


def refuse(payment: Payment, refund_id: UUID, amount_minor: int, reason: str, code: str, now: datetime) -> RefundDecision:
    """A refund that failed before it began: nobody is asked, and whoever wanted it is told."""
    refused = begun(payment, refund_id, kept_minor(amount_minor), reason, now)
    refund = replace(refused, state=R.FAILED, failure_code=code, due_at=None)
    return RefundDecision(payment=payment, refund=refund, events=(failed_event(payment, refund),))


def begun(payment: Payment, refund_id: UUID, amount_minor: int, reason: str, now: datetime) -> Refund:
    """A new refund, whose call is still to be planned."""
    return Refund(
        tenant_id=payment.tenant_id,
        id=refund_id,
        payment_id=payment.id,
        checkout_id=payment.checkout_id,
        order_id=payment.order_id,
        amount_minor=amount_minor,
        currency=payment.currency,
        reason=without_sensitive(reason),
        asked_at=now,
        due_at=now + WAITS[0],
        created_at=now,
    )


def operation_of(payment: Payment, refund: Refund, now: datetime, lease: timedelta) -> Operation:
    """The call that a refund waits for: a function of the refund, so that a lost one is made again under its key."""
    identity = refund_operation_id(refund.id, refund.attempt)
    metadata = {
        "tenant_id": str(refund.tenant_id),
        "payment_id": str(refund.payment_id),
        "checkout_id": str(refund.checkout_id),
        "order_id": str(refund.order_id),
        "refund_id": str(refund.id),
    }
    return Operation(
        tenant_id=refund.tenant_id,
        id=identity,
        payment_id=refund.payment_id,
        refund_id=refund.id,
        kind=OperationKind.REFUND,
        attempt=refund.attempt,
        idempotency_key=idempotency_key(identity),
        request={
            "intent_id": payment.intent_id,
            "amount_minor": refund.amount_minor,
            "reason": refund.reason,
            "metadata": metadata,
            # Stored with the rest: under a key of before, what is asked stays as it was.
            "with_movement": True,
        },
        state=OperationState.SENDING,
        tries=1,
        first_send_at=refund.asked_at,
        due_at=now + lease,
    )


def revive(payment: Payment, refund: Refund, call: Operation | None, now: datetime) -> Operation | None:
    """The call of a refund whose row was lost, again under its key. None: it is there, or the refund waits for none."""
    if call is not None or refund.state not in ASKING:
        return None
    return operation_of(payment, refund, now, NO_LEASE)


# --- Money that is nobody's: every capture ends in an order or in a refund -------------------------------------------


def ask_for_order(payment: Payment, question_id: UUID, now: datetime) -> tuple[Payment, OrderStatusAsked] | None:
    """Ask what became of the order: from silence nothing follows. None: its word is known, or nothing of the money is left."""
    if payment.order_standing is OrderStanding.CONFIRMED or left_minor(payment) <= 0:
        return None
    asked = OrderStatusAsked(
        question_id=question_id, payment_id=payment.id, checkout_id=payment.checkout_id, order_id=payment.order_id
    )
    return replace(payment, order_asked_at=now), asked


def return_orphaned(payment: Payment, now: datetime) -> RefundDecision | None:
    """Give back what belongs to no order, by checkout's own word. None: nothing of this payment does."""
    if payment.order_standing is OrderStanding.CONFIRMED or payment.order_asked_at is None:
        return None
    return _return_all(payment, ORPHANED, now)


def return_for_canceled_order(payment: Payment, now: datetime) -> RefundDecision | None:
    """Give back what was taken for an order that is off. None: nothing was, or the order is not."""
    if payment.state is not PaymentState.CAPTURED or payment.order_standing is not OrderStanding.CANCELED:
        return None
    return _return_all(payment, ORDER_CANCELED, now)


def _return_all(payment: Payment, reason: str, now: datetime) -> RefundDecision | None:
    """All that is left, if anything is. The refund's id follows from the payment as it stands."""
    if left_minor(payment) <= 0:
        return None
    return plan_refund(payment, uuid5(payment.id, f"all:{payment.version}"), None, reason, now)
