"""A refund as it is asked for: planned once with its call, or refused with a code, and never more than there is left."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from libs.common.contracts.payments import RefundFailed
from libs.common.errors import CartwrightError
from services.payments.domain.money import refund_asking
from services.payments.domain.money.refund import RefundDecision, RefundState
from services.payments.domain.payment.asking import AMOUNT_NOT_PAYABLE
from services.payments.domain.payment.payment import PaymentState
from services.payments.domain.provider.operation import PLANNED_LEASE, OperationKind, OperationState, idempotency_key
from tests.shared.events import refund_requested
from tests.unit.payments.money_back import CAPTURED, CHECKOUT, ORDER, PAYMENT, START, captured

REFUND = UUID(int=77)


def asked(amount_minor: int = 300, **members: Any) -> Any:
    whose = {"refund_id": REFUND, "payment_id": PAYMENT, "checkout_id": CHECKOUT, "order_id": ORDER}
    return refund_requested(amount_minor, **{**whose, **members})


def decided(payment: Any = None, **members: Any) -> RefundDecision:
    decision = refund_asking.request(payment or captured(), None, asked(**members), START)
    assert decision is not None
    return decision


def test_what_is_asked_for_is_set_aside_and_its_call_is_planned_under_a_key_of_its_own() -> None:
    decision = decided()
    refund, call = decision.refund, decision.planned
    assert call is not None
    assert (decision.payment.refunding_minor, decision.payment.refunded_minor, decision.events) == (300, 0, ())
    assert (refund.id, refund.amount_minor, refund.currency, refund.state) == (REFUND, 300, "GBP", RefundState.REQUESTED)
    assert (refund.payment_id, refund.checkout_id, refund.order_id, refund.failure_code) == (PAYMENT, CHECKOUT, ORDER, None)
    assert (call.kind, call.refund_id, call.state, call.tries) == (OperationKind.REFUND, REFUND, OperationState.SENDING, 1)
    assert (call.idempotency_key, call.due_at) == (idempotency_key(call.id), START + PLANNED_LEASE)
    assert refund_asking.request(decision.payment, refund, asked(), START) is None, "it was asked before"
    again = decided()
    assert again.planned == call, "a lost row is planned again under the same key"


@pytest.mark.parametrize(
    ("payment", "members", "code"),
    [
        (captured(), {"currency": "EUR"}, "refund-currency"),
        (captured(), {"amount_minor": CAPTURED + 1}, "refund-exceeds-capture"),
        (replace(captured(), refunding_minor=600, refunded_minor=101), {}, "refund-exceeds-capture"),
        (replace(captured(), captured_minor=0, state=PaymentState.AUTHORIZED), {}, "payment-not-captured"),
        (replace(captured(), currency="KWD"), {"amount_minor": 5, "currency": "KWD"}, AMOUNT_NOT_PAYABLE),
    ],
)
def test_what_cannot_be_is_refused_with_a_code_and_nobody_is_asked(payment: Any, members: dict[str, Any], code: str) -> None:
    decision = decided(payment, **members)
    assert (decision.planned, decision.payment) == (None, payment)
    assert (decision.refund.state, decision.refund.failure_code, decision.refund.due_at) == (RefundState.FAILED, code, None)
    [told] = decision.events
    assert isinstance(told, RefundFailed)
    assert (told.refund_id, told.code) == (REFUND, code)


def test_all_that_is_left_and_the_very_last_of_it_can_be_given_back_and_then_nothing_more() -> None:
    part = replace(captured(), refunding_minor=600, refunded_minor=100)
    assert decided(part).payment.refunding_minor == 900
    rest = refund_asking.plan_refund(part, REFUND, None, "all of it", START)
    assert (rest.refund.amount_minor, rest.payment.refunding_minor) == (300, 900)
    with pytest.raises(CartwrightError, match="refund-exceeds-capture"):
        refund_asking.plan_refund(rest.payment, REFUND, None, "all of it", START)
