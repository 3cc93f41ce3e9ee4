"""Money that was taken stays an order's: nothing that is said of its hold afterwards calls the order off."""

from collections.abc import Callable

import pytest

from libs.common.contracts import Event
from libs.common.contracts.checkout import OrderCanceled, PaymentVoidRequested
from services.checkout.domain.order import Order, OrderState, PaymentState
from services.checkout.domain.saga import Checkout, CheckoutState
from services.checkout.domain.stock import Stock
from tests.shared.events import payment_captured
from tests.unit.checkout.shop import after, authorized, lapsed, paying, shop, voided

GONE = pytest.mark.parametrize("gone", [voided, lapsed])


@GONE
def test_an_order_whose_money_was_taken_is_not_called_off_when_the_rest_of_the_hold_goes(
    gone: Callable[[Checkout], Event],
) -> None:
    memory = shop(tea=5)
    checkout = paying(memory)
    after(memory, checkout, authorized(checkout), payment_captured(checkout), gone(checkout))
    order = memory.get(Order, checkout.order_id)
    assert (order.state, order.payment_state, order.captured_minor) == (OrderState.CONFIRMED, PaymentState.CAPTURED, 500)
    assert (memory.events(OrderCanceled), memory.get(Stock, "tea").sold) == ([], 2)


@GONE
def test_an_order_whose_money_was_let_go_before_it_was_taken_is_off_and_its_goods_are_back(
    gone: Callable[[Checkout], Event],
) -> None:
    memory = shop(tea=5)
    checkout = paying(memory)
    after(memory, checkout, authorized(checkout), gone(checkout), gone(checkout))
    order = memory.get(Order, checkout.order_id)
    assert (order.state, order.reason, order.payment_state) == (OrderState.CANCELED, "payment-capture-failed", PaymentState.NONE)
    [told] = memory.events(OrderCanceled)
    assert (told.payment_id, told.reason) == (checkout.payment_id, "payment-capture-failed")
    assert (memory.get(Stock, "tea").on_hand, memory.get(Stock, "tea").sold) == (5, 0)


@pytest.mark.parametrize(("off_by", "currency"), [(1, "GBP"), (-1, "GBP"), (0, "EUR")])
def test_no_order_is_made_of_other_money_than_was_quoted_and_that_is_let_go(off_by: int, currency: str) -> None:
    memory = shop(tea=5)
    checkout = paying(memory)
    letting_go = after(memory, checkout, authorized(checkout, off_by=off_by, currency=currency))
    assert (letting_go.state, letting_go.reason) == (CheckoutState.CANCELING, "amount-mismatch")
    assert [(told.payment_id, told.reason) for told in memory.events(PaymentVoidRequested)] == [
        (checkout.payment_id, "amount-mismatch")
    ]
    failed = after(memory, checkout, voided(checkout))
    assert (failed.state, failed.reason, memory.all(Order)) == (CheckoutState.FAILED, "amount-mismatch", [])
    assert memory.get(Checkout, checkout.id).allocations == ()
