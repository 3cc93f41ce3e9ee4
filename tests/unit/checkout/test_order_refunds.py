"""Money that goes back to the buyer: asked for, refused, failed after all, and never more than was taken."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.checkout import (
    OrderRefunded,
    OrderRefundFailed,
    RefundRequested,
)
from libs.common.contracts.payments import (
    PaymentExpired,
    PaymentVoided,
    RefundFailed,
    RefundPending,
    RefundSucceeded,
)
from libs.common.errors import CartwrightError, ConflictError
from services.checkout.domain import refund as till
from services.checkout.domain.order import Order, OrderState, PaymentState
from services.checkout.domain.refund import Refund, RefundState
from services.checkout.domain.saga import Checkout, CheckoutState
from services.checkout.domain.stock import Stock
from services.checkout.handlers import HANDLERS
from services.checkout.handlers.orders import CancelOrder
from tests.unit.checkout.sales import SHIPPING_MINOR, STAFF, TOTAL_MINOR, ask, captured, sold, told
from tests.unit.memory import NOW, TENANT, Memory


def test_a_refund_with_neither_amount_nor_lines_gives_back_all_that_is_left_and_puts_its_goods_on_the_shelf_once_it_is() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    refund = ask(memory, order, restock=True)
    assert (refund.amount_minor, refund.state) == (TOTAL_MINOR, RefundState.REQUESTED)
    assert [event.amount_minor for event in memory.events(RefundRequested)] == [TOTAL_MINOR]
    assert memory.get(Stock, "tea").sold == 3
    for kind in (RefundPending, RefundSucceeded, RefundSucceeded, RefundPending):
        memory.execute(told(refund, order, kind))
    order = memory.get(Order, order.id)
    assert (order.payment_state, order.refunded_minor, order.refunding_minor) == (PaymentState.REFUNDED, TOTAL_MINOR, 0)
    assert [(event.amount_minor, event.refunded_minor) for event in memory.events(OrderRefunded)] == [(TOTAL_MINOR, TOTAL_MINOR)]
    stock = memory.get(Stock, "tea")
    assert (stock.on_hand, stock.sold) == (10, 0)
    with pytest.raises(ConflictError, match="refund-exceeds-capture"):
        ask(memory, order)


def test_refunding_lines_one_by_one_gives_back_what_they_cost_to_the_last_minor_unit_and_never_shipping() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    amounts = [ask(memory, order, quantities={"1": 1}).amount_minor for _ in range(3)]
    assert (sum(amounts), max(amounts) - min(amounts)) == (750 - 100 + 65, 1)
    assert ask(memory, order, quantities={"2": 1}).amount_minor == 2_199
    with pytest.raises(ConflictError, match="line-refunded"):
        ask(memory, order, quantities={"1": 1})
    assert ask(memory, order).amount_minor == SHIPPING_MINOR


@pytest.mark.parametrize(
    ("amount", "quantities", "restock", "refusal"),
    [
        (TOTAL_MINOR + 1, {}, False, "refund-exceeds-capture"),
        (None, {"3": 1}, False, "unknown-line"),
        (None, {"1": 4}, False, "line-refunded"),
        (5, {}, True, "restock-needs-lines"),
    ],
)
def test_what_cannot_be_refunded_is_refused_and_asks_nothing_of_payments(
    amount: int | None, quantities: dict[str, int], restock: bool, refusal: str
) -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    with pytest.raises(CartwrightError, match=refusal):
        ask(memory, order, amount, quantities, restock=restock)
    assert (memory.get(Order, order.id), memory.events(RefundRequested)) == (order, [])


def test_money_that_was_not_taken_is_not_refunded_and_money_that_was_is_not_canceled() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory, is_captured=False)
    with pytest.raises(ConflictError, match="order-not-captured"):
        ask(memory, order, 1)
    memory.execute(captured(order))
    with pytest.raises(ConflictError, match="order-captured"):
        memory.execute(CancelOrder(order_id=order.id, caller=STAFF))


def test_a_refund_that_comes_back_after_it_had_succeeded_may_be_made_again() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    refund = ask(memory, order, quantities={"1": 2}, restock=True)
    memory.execute(told(refund, order, RefundSucceeded))
    assert memory.get(Order, order.id).payment_state is PaymentState.PARTIALLY_REFUNDED
    memory.execute(told(refund, order, RefundFailed))
    order = memory.get(Order, order.id)
    assert (order.payment_state, order.refunded_minor, order.refunding_minor) == (PaymentState.CAPTURED, 0, 0)
    assert memory.get(Refund, refund.id).code == "expired_card"
    again = ask(memory, order, quantities={"1": 2}, restock=True)
    memory.execute(told(again, order, RefundSucceeded))
    assert memory.get(Stock, "tea").on_hand == 9, "the goods came back once"
    assert memory.get(Order, order.id).refunded_minor == again.amount_minor == refund.amount_minor


def test_a_refund_that_payments_made_by_itself_is_counted_too_even_before_the_capture_is_heard_of() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory, is_captured=False)
    memory.execute(CancelOrder(order_id=order.id, caller=STAFF))
    theirs = Refund(
        tenant_id=TENANT,
        id=uuid4(),
        order_id=order.id,
        payment_id=order.payment_id,
        state=RefundState.REQUESTED,
        amount_minor=TOTAL_MINOR,
        currency="GBP",
        reason="",
        requested_at=NOW,
    )
    memory.execute(told(theirs, order, RefundSucceeded))
    memory.execute(captured(order))
    order = memory.get(Order, order.id)
    assert (order.state, order.payment_state, order.refunded_minor) == (OrderState.CANCELED, PaymentState.REFUNDED, TOTAL_MINOR)
    assert memory.get(Refund, theirs.id).state is RefundState.SUCCEEDED


@pytest.mark.parametrize("has_failed_first", [False, True])
def test_what_went_back_beyond_what_was_taken_is_written_down_and_the_failure_that_explains_it_puts_it_right(
    has_failed_first: bool,
) -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    first = ask(memory, order, restock=True)
    memory.execute(told(first, order, RefundSucceeded))
    second = replace(first, id=uuid4())
    news = [told(second, order, RefundPending), told(second, order, RefundSucceeded)]
    news.insert(0 if has_failed_first else 2, told(first, order, RefundFailed))
    for each in news:
        if memory.get(Order, order.id).refunded_minor + memory.get(Order, order.id).refunding_minor > TOTAL_MINOR:
            with pytest.raises(ConflictError, match="refund-exceeds-capture"):
                ask(memory, order, 1)
        memory.execute(each)
        memory.execute(each)
    order = memory.get(Order, order.id)
    assert (order.payment_state, order.refunded_minor, order.refunding_minor) == (PaymentState.REFUNDED, TOTAL_MINOR, 0)
    said = [each.event for each in memory.outbox if isinstance(each.event, OrderRefunded | OrderRefundFailed)]
    assert [each.refunded_minor for each in said] == [TOTAL_MINOR, 0 if has_failed_first else 2 * TOTAL_MINOR, TOTAL_MINOR]
    assert [(each.refund_id, each.code) for each in memory.events(OrderRefundFailed)] == [(first.id, "expired_card")]


def test_a_refund_that_never_was_is_not_taken_back() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    refund = ask(memory, order)
    memory.execute(told(refund, order, RefundFailed))
    assert (memory.events(OrderRefunded), memory.events(OrderRefundFailed)) == ([], [])


@pytest.mark.parametrize("end", [PaymentVoided, PaymentExpired])
def test_an_order_that_is_off_says_authorized_for_as_long_as_its_money_is_held(end: Any) -> None:
    memory = Memory(HANDLERS)
    order = sold(memory, is_captured=False)
    checkout = Checkout(
        tenant_id=TENANT,
        id=order.checkout_id,
        subject_id=order.subject_id,
        cart_id=order.cart_id,
        state=CheckoutState.CONFIRMED,
        method="m",
        body_digest="",
        order_id=order.id,
        payment_id=order.payment_id,
        started_at=NOW,
        expires_at=NOW,
    )
    memory.rows[Checkout, TENANT, checkout.id] = checkout
    memory.execute(CancelOrder(order_id=order.id, caller=STAFF))
    assert memory.get(Order, order.id).payment_state is PaymentState.AUTHORIZED
    for _ in range(2):
        memory.execute(end(payment_id=order.payment_id, checkout_id=checkout.id))
    off = memory.get(Order, order.id)
    assert (off.state, off.payment_state) == (OrderState.CANCELED, PaymentState.NONE)
    memory.execute(captured(order))
    assert memory.get(Order, order.id).payment_state is PaymentState.CAPTURED, "if the provider took it all the same"


ANSWERS = st.sampled_from([RefundPending, RefundSucceeded, RefundFailed])


@given(st.lists(st.tuples(st.integers(1, TOTAL_MINOR), st.lists(ANSWERS, max_size=4)), max_size=8))
@settings(max_examples=150)
def test_whatever_becomes_of_refunds_no_more_goes_back_than_was_taken(wishes: list[tuple[int, Sequence[type[Any]]]]) -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    for amount, answers in wishes:
        before = memory.get(Order, order.id)
        if amount > till.refundable_minor(before):
            with pytest.raises(ConflictError):
                ask(memory, order, amount)
            continue
        refund = ask(memory, order, amount)
        for kind in answers:
            memory.execute(told(refund, order, kind))
        order = memory.get(Order, order.id)
        refunds = memory.all(Refund)
        gone = sum(each.amount_minor for each in refunds if each.state is RefundState.SUCCEEDED)
        going = sum(each.amount_minor for each in refunds if each.state in {RefundState.REQUESTED, RefundState.PENDING})
        assert (order.refunded_minor, order.refunding_minor) == (gone, going)
        assert gone + going <= order.captured_minor
        assert (order.payment_state is PaymentState.REFUNDED) == (gone == TOTAL_MINOR)
        assert all(progress.refunded == 0 for progress in order.progress.values())
    assert len({event.refund_id for event in memory.events(RefundRequested)}) == len(memory.all(Refund))
