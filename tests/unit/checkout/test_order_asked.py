"""Payments has taken money and hears of no order: it asks, checkout tells, and nothing goes back upon silence."""

from dataclasses import replace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from libs.common.contracts.checkout import OrderStatusTold, PaymentRequested
from libs.common.contracts.payments import OrderStatusAsked
from libs.common.decision import Viewer
from libs.common.errors import NotFoundError
from services.checkout.domain.order import Order
from services.checkout.domain.saga import Checkout
from services.checkout.handlers.orders import CancelOrder
from services.payments.domain.money.refund import Refund
from services.payments.domain.money.refund_asking import ORPHANED
from services.payments.domain.payment.payment import OrderStanding, Payment
from services.payments.domain.payment.payment import PaymentState as MoneyState
from services.payments.domain.provider.operation import OPEN, Operation
from services.payments.domain.provider.outcome import Rejected
from services.payments.handlers import HANDLERS as PAYMENTS
from services.payments.handlers.outcomes import RecordOutcome
from services.payments.handlers.refunds import AskForOrder
from tests.shared.events import AMOUNT, payment_requested, tenant_updated
from tests.unit.checkout.shop import S, after, authorized, cancel, declined, paying, shop, voided
from tests.unit.memory import TENANT, Memory


def asked(checkout: Checkout, **members: UUID) -> OrderStatusAsked:
    whose = {"payment_id": checkout.payment_id, "checkout_id": checkout.id, "order_id": checkout.order_id}
    return OrderStatusAsked(question_id=uuid4(), **{**whose, **members})


def answer(memory: Memory, question: OrderStatusAsked) -> OrderStatusTold | None:
    memory.execute(question)
    answers = [each for each in memory.outbox if getattr(each.event, "question_id", None) == question.question_id]
    assert {each.sequence for each in answers} <= {1}, "each question is answered once, and begins to count anew"
    return cast("OrderStatusTold", answers[0].event) if answers else None


def test_checkout_tells_of_an_order_that_stands_or_is_off_and_of_one_that_will_never_be_and_else_says_nothing() -> None:
    memory = shop(tea=20)
    live, bought, off, dead = (paying(memory) for _ in range(4))
    after(memory, bought, authorized(bought))
    after(memory, off, authorized(off))
    memory.execute(CancelOrder(order_id=off.order_id, caller=Viewer(subject_id=off.subject_id, sees_all=False)))
    after(memory, dead, declined(dead))
    said = {
        name: answer(memory, asked(each)) for name, each in {"bought": bought, "off": off, "dead": dead, "live": live}.items()
    }
    assert {name: told and told.status for name, told in said.items()} == {
        "bought": "confirmed",
        "off": "canceled",
        "dead": "none",
        "live": None,
    }
    canceling = cancel(memory, live)
    assert canceling.state is S.CANCELING
    assert answer(memory, asked(live)) is None, "payments has not said yet that it let go"
    after(memory, live, voided(live))
    told = answer(memory, asked(live))
    assert told is not None
    assert (told.status, told.payment_id) == ("none", live.payment_id)
    other = answer(memory, asked(bought, payment_id=uuid4()))
    assert other is not None
    assert other.status == "none", "the order does not stand on that payment"


def test_of_a_checkout_or_an_order_that_was_lost_nothing_is_concluded() -> None:
    memory = shop(tea=5)
    checkout = paying(memory)
    after(memory, checkout, authorized(checkout))
    with pytest.raises(NotFoundError, match="checkout-not-found"):
        memory.execute(asked(checkout, checkout_id=uuid4(), order_id=uuid4()))
    del memory.rows[Order, TENANT, checkout.order_id]
    with pytest.raises(NotFoundError, match="order-not-found"):
        memory.execute(asked(checkout))


@pytest.mark.parametrize("ended", ["confirmed", "canceled", "none"])
def test_what_a_shipment_took_stays_with_an_order_that_stands_and_goes_back_where_none_does(ended: str) -> None:
    """The order's own event lags, or is parked: payments has heard of the shipment, and of nothing else."""
    memory, money = shop(tea=5), Memory(PAYMENTS)
    checkout = paying(memory)
    [request] = memory.events(PaymentRequested)
    money.execute(tenant_updated(TENANT))
    money.execute(request)
    after(memory, checkout, declined(checkout) if ended == "none" else authorized(checkout))
    if ended == "canceled":
        memory.execute(CancelOrder(order_id=checkout.order_id, caller=Viewer(subject_id=checkout.subject_id, sees_all=False)))
    taken_minor = request.amount_minor
    numbers: dict[str, Any] = {"authorized_minor": taken_minor, "captured_minor": taken_minor, "intent_id": "pi_1"}
    known = money.get(Payment, checkout.payment_id)
    captured = replace(known, state=MoneyState.CAPTURED, operation_id=None, operation_at=None, look_at=None, **numbers)
    money.rows[Payment, TENANT, checkout.payment_id] = captured
    assert money.execute(AskForOrder(payment_id=checkout.payment_id))
    assert money.all(Refund) == [], "nothing goes back upon silence"
    [question] = money.events(OrderStatusAsked)
    told = answer(memory, question)
    money.execute(told)
    refunds = [(each.amount_minor, each.reason) for each in money.all(Refund)]
    went = {"confirmed": [], "canceled": [(taken_minor, "order-canceled")], "none": [(taken_minor, ORPHANED)]}
    assert refunds == went[ended]
    standing = {"none": OrderStanding.AWAITED, "confirmed": OrderStanding.CONFIRMED, "canceled": OrderStanding.CANCELED}
    assert money.get(Payment, checkout.payment_id).order_standing is standing[ended]
    assert not money.execute(AskForOrder(payment_id=checkout.payment_id)), "its word is known"


def test_a_refund_of_an_order_that_is_off_which_failed_is_made_again_when_checkout_is_asked() -> None:
    """Both know that the order is off, so nothing but the question is ever said of it again."""
    money, payment_id = Memory(PAYMENTS), uuid4()
    money.execute(tenant_updated(TENANT))
    request = payment_requested(payment_id=payment_id)
    money.execute(request)
    known = money.get(Payment, payment_id)
    numbers: dict[str, Any] = {"authorized_minor": AMOUNT, "captured_minor": AMOUNT, "intent_id": "pi_1"}
    ended = replace(known, state=MoneyState.CAPTURED, operation_id=None, operation_at=None, look_at=None, **numbers)
    money.rows[Payment, TENANT, payment_id] = replace(ended, order_standing=OrderStanding.CANCELED)
    whose = {"payment_id": payment_id, "checkout_id": request.checkout_id, "order_id": request.order_id}
    for count in (1, 2):
        assert money.execute(AskForOrder(payment_id=payment_id)), "money is left, and it is nobody's"
        told = OrderStatusTold(question_id=uuid4(), status="canceled", **whose)
        money.execute(told)
        money.execute(told)
        assert [(each.amount_minor, each.reason) for each in money.all(Refund)] == [(AMOUNT, "order-canceled")] * count
        [call] = [each for each in money.all(Operation) if each.refund_id is not None and each.state in OPEN]
        assert money.execute(RecordOutcome.of(call, Rejected("charge-not-refundable", "")))
