"""Small promises of checkout that nothing else holds: what a refund leaves alone, and who is answered that there is nothing."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from libs.common.contracts.checkout import OrderRefunded
from libs.common.contracts.inventory import StockAdjusted
from libs.common.contracts.payments import PaymentActionRequired, PaymentExpired, PaymentVoided, RefundSucceeded
from libs.common.decision import Message, Ref, Viewer
from libs.common.errors import NotFoundError
from services.checkout.domain import refund as till
from services.checkout.domain.order import Order, OrderState
from services.checkout.domain.stock import Stock
from services.checkout.domain.timeline import entry_of
from services.checkout.handlers import HANDLERS, CancelCheckout, ResumeCheckout
from services.checkout.handlers.checkouts import WakeCheckout
from services.checkout.handlers.orders import SendLink
from tests.unit.checkout.sales import TOTAL_MINOR, ask, sold, told
from tests.unit.checkout.shop import after, authorized, frozen, paying, shop
from tests.unit.memory import TENANT, Memory

CALLER = Viewer(subject_id=uuid4(), sees_all=False)


def test_a_refund_that_does_not_say_so_puts_no_goods_on_the_shelf() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    refund = ask(memory, order, quantities={"1": 3})
    memory.execute(told(refund, order, RefundSucceeded))
    assert (memory.get(Stock, "tea").sold, memory.get(Stock, "tea").on_hand) == (3, 7)
    after = memory.get(till.Refund, refund.id)
    assert (after.state, after.is_restocked) == (till.RefundState.SUCCEEDED, False)
    assert [event.restock for event in memory.events(OrderRefunded)] == [False]


@pytest.mark.parametrize(("captured", "refunded", "beyond"), [(10, 10, 0), (10, 0, 0), (10, 12, 2), (0, TOTAL_MINOR, 0)])
def test_what_went_back_beyond_what_was_taken_is_told_to_the_penny(captured: int, refunded: int, beyond: int) -> None:
    order = replace(sold(Memory(HANDLERS), is_captured=False), captured_minor=captured, refunded_minor=refunded)
    assert till.beyond_minor(order) == beyond


def test_whoever_names_a_checkout_that_is_not_there_is_told_so_and_a_timer_of_one_has_nothing_to_do() -> None:
    memory = shop(tea=1)
    for command in (CancelCheckout(checkout_id=uuid4(), caller=CALLER), ResumeCheckout(checkout_id=uuid4(), caller=CALLER)):
        with pytest.raises(NotFoundError, match="checkout-not-found"):
            memory.execute(command)
    assert memory.execute(WakeCheckout(checkout_id=uuid4())) == "over"


@pytest.mark.parametrize(
    ("traceparent", "trace_id"),
    [(None, None), ("", None), ("garbage", None), ("00-ab-cd", None), ("00-ab-cd-01", "ab")],
)
def test_a_trace_is_told_of_where_there_is_a_whole_one(traceparent: str | None, trace_id: str | None) -> None:
    event = PaymentVoided(payment_id=uuid4(), checkout_id=uuid4())
    at = datetime(2026, 1, 1, tzinfo=UTC)
    entry = entry_of(
        Message(data=event, tenant_id=TENANT, id="m", time=at, source="/cartwright/payments", traceparent=traceparent)
    )
    assert entry is not None
    assert entry.trace_id == trace_id


@pytest.mark.parametrize("kind", [PaymentVoided, PaymentExpired])
def test_what_becomes_of_another_payment_or_of_nobodys_moves_nothing(kind: type[PaymentVoided] | type[PaymentExpired]) -> None:
    memory = shop(tea=5)
    checkout = paying(memory)
    confirmed = after(memory, checkout, authorized(checkout))
    rows, told_before = dict(memory.rows), len(memory.outbox)
    memory.execute(kind(payment_id=uuid4(), checkout_id=checkout.id))
    memory.execute(kind(payment_id=checkout.payment_id, checkout_id=uuid4()))
    assert (memory.rows, len(memory.outbox)) == (rows, told_before)
    assert memory.get(Order, confirmed.order_id).state is OrderState.CONFIRMED


def test_a_cart_that_answers_a_checkout_that_nobody_has_or_that_has_gone_on_moves_nothing() -> None:
    memory = shop(tea=5)
    checkout = paying(memory)
    rows, told_before = dict(memory.rows), len(memory.outbox)
    memory.execute(frozen(checkout, [("tea", 2)]))
    memory.execute(frozen(replace(checkout, id=uuid4()), [("tea", 2)]))
    assert (memory.rows, len(memory.outbox)) == (rows, told_before)


def test_a_link_is_the_first_and_only_thing_told_of_its_lookup() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    memory.execute(SendLink(order_id=order.id, lookup_id=uuid4()))
    assert memory.outbox[-1].sequence == 1


def test_an_order_waits_for_its_payer_no_more() -> None:
    memory = shop(tea=5)
    checkout = paying(memory)
    challenged = after(memory, checkout, PaymentActionRequired(payment_id=checkout.payment_id, checkout_id=checkout.id))
    assert challenged.action_required
    assert not after(memory, challenged, authorized(challenged)).action_required


def test_an_adjustment_that_is_given_up_is_one_of_its_own_product() -> None:
    adjusted = StockAdjusted(sku="tea", location="main", delta=1, reason="found")
    message = Message(data=adjusted, tenant_id=TENANT, id="m", time=datetime(2026, 1, 1, tzinfo=UTC))
    assert Ref(Stock, "tea") in [*HANDLERS.discards[StockAdjusted].refs(message)]
