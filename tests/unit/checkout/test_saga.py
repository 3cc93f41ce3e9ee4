"""The checkout's machine: every legal path, every way to fail, and the table."""

from dataclasses import astuple, replace
from datetime import timedelta
from typing import Any
from uuid import uuid4, uuid5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.cart import Discount
from libs.common.contracts.checkout import (
    CheckoutFailed,
    CheckoutRequested,
    OrderCanceled,
    OrderConfirmed,
    PaymentRequested,
    PaymentVoidRequested,
)
from libs.common.decision import Viewer
from libs.common.errors import ConflictError
from services.checkout.domain import quote as pricing
from services.checkout.domain import saga
from services.checkout.domain.order import Order, OrderState, PaymentState
from services.checkout.domain.refund import RefundWish
from services.checkout.domain.saga import FINAL, TRANSITIONS, CheckoutState
from services.checkout.domain.stock import Stock
from services.checkout.handlers.orders import CancelOrder
from services.checkout.handlers.refunds import RequestRefund
from tests.shared.events import payment_captured
from tests.unit.checkout.shop import (
    CART,
    PRICES,
    SUBJECT,
    S,
    after,
    authorized,
    declined,
    frozen,
    paying,
    reachable,
    refused,
    shop,
    start,
    voided,
)
from tests.unit.memory import NOW

# Every legal path.


def test_a_purchase_goes_from_start_to_captured() -> None:
    memory = shop(tea=5, gin=5)
    checkout = start(memory)
    assert (checkout.state, checkout.expires_at) == (S.STARTED, NOW + timedelta(seconds=900))
    asked = CheckoutRequested(checkout_id=checkout.id, cart_id=CART, subject_id=SUBJECT, attempt=1)
    assert memory.events(CheckoutRequested) == [asked]
    checkout = after(memory, checkout, frozen(checkout, [("tea", 2), ("gin", 1)], discount=99))
    [requested] = memory.events(PaymentRequested)
    assert checkout.quote is not None
    assert (requested.amount_minor, requested.currency, requested.quote_hash) == (2_400, "GBP", checkout.quote.digest)
    assert (requested.payment_id, requested.order_id) == (uuid5(checkout.id, "payment:1"), uuid5(checkout.id, "order"))
    checkout = after(memory, checkout, authorized(checkout))
    order = memory.get(Order, checkout.order_id)
    assert (checkout.state, order.number, order.payment_state) == (S.CONFIRMED, 1, PaymentState.AUTHORIZED)
    assert [(line.sku, line.quantity, line.total_minor) for line in order.lines] == [("tea", 2, 500), ("gin", 1, 1_999)]
    [confirmed] = memory.events(OrderConfirmed)
    assert confirmed.totals.total_minor == order.total_minor == 2_400
    memory.execute(payment_captured(checkout))
    memory.execute(payment_captured(checkout))
    order = memory.get(Order, checkout.order_id)
    assert (order.captured_minor, order.payment_state, order.version) == (2_400, PaymentState.CAPTURED, 2)
    memory.assert_numbered()


def test_every_way_to_fail_says_why_and_gives_everything_back() -> None:
    memory = shop(tea=2)
    ways: list[tuple[str, list[Any]]] = [
        ("cart-empty", [refused]),
        ("out-of-stock", [lambda each: frozen(each, [("tea", 3)])]),
        ("out-of-stock", [lambda each: frozen(each, [("tea", 1), ("gin", 1)])]),
        ("out-of-stock", [lambda each: frozen(each, [("tea", 1), ("tea", 2)])]),
        ("payment-declined", [lambda each: frozen(each, [("tea", 2)]), declined]),
        ("payment-failed", [lambda each: frozen(each, [("tea", 2)]), lambda each: declined(each, "provider-rejected")]),
        ("payment-failed", [lambda each: frozen(each, [("tea", 2)]), voided]),
    ]
    for number, (reason, events) in enumerate(ways, 1):
        checkout = start(memory, cart_id=CART)
        for event in events:
            checkout = after(memory, checkout, event(checkout))
        assert (checkout.state, checkout.reason, checkout.allocations) == (S.FAILED, reason, ())
        assert astuple(memory.events(CheckoutFailed)[-1]) == (checkout.id, CART, reason)
        assert len(memory.events(CheckoutFailed)) == number
        stock = memory.get(Stock, "tea")
        assert (stock.on_hand, stock.reserved, stock.sold) == (2, 0, 0)
    memory.assert_numbered()


@pytest.mark.parametrize("wrong", [{"off_by": 1}, {"off_by": -1}, {"currency": "EUR"}])
def test_money_that_is_not_what_was_quoted_is_let_go_of_and_never_confirms(wrong: dict[str, Any]) -> None:
    memory = shop(tea=2)
    checkout = paying(memory)
    checkout = after(memory, checkout, authorized(checkout, **wrong))
    assert (checkout.state, checkout.reason) == (S.CANCELING, "amount-mismatch")
    assert [event.reason for event in memory.events(PaymentVoidRequested)] == ["amount-mismatch"]
    assert memory.get(Stock, "tea").reserved == 2, "held until payments has let go"
    checkout = after(memory, checkout, authorized(checkout))
    assert checkout.state is S.CANCELING, "too late for the right amount"
    checkout = after(memory, checkout, voided(checkout))
    assert (checkout.state, checkout.reason, memory.get(Stock, "tea").on_hand) == (S.FAILED, "amount-mismatch", 2)
    assert memory.all(Order) == []


@pytest.mark.parametrize("money", [authorized, payment_captured], ids=["authorized", "captured"])
def test_money_that_comes_after_the_end_is_let_go_of_once_and_the_end_stays_as_it_was(money: Any) -> None:
    memory = shop(tea=2)
    checkout = paying(memory)
    ended = after(memory, checkout, declined(checkout))
    assert after(memory, ended, money(checkout), money(checkout)) == ended
    assert [event.payment_id for event in memory.events(PaymentVoidRequested)] == [checkout.payment_id]
    assert memory.all(Order) == []
    memory.assert_numbered()


def test_another_payment_of_the_same_checkout_neither_confirms_nor_fails_it_and_is_let_go_of() -> None:
    memory = shop(tea=2)
    checkout = paying(memory)
    other = uuid4()
    strangers = [replace(event, payment_id=other) for event in (authorized(checkout), declined(checkout), voided(checkout))]
    assert after(memory, checkout, *strangers) == checkout
    assert [event.payment_id for event in memory.events(PaymentVoidRequested)] == [other]
    assert after(memory, checkout, authorized(checkout)).state is S.CONFIRMED


def test_what_costs_nothing_is_an_order_that_nobody_was_asked_for_money_for() -> None:
    memory = shop(tea=3)
    for number, discount in enumerate((500, 900), 1):
        checkout = start(memory, cart_id=uuid4())
        checkout = after(memory, checkout, frozen(checkout, [("tea", 1)], discount=discount))
        order = memory.get(Order, checkout.order_id)
        assert (checkout.state, checkout.asks_for_money, order.number) == (S.CONFIRMED, False, number)
        assert (order.total_minor, order.captured_minor, order.payment_state) == (0, 0, PaymentState.CAPTURED)
    assert (memory.get(Stock, "tea").on_hand, memory.get(Stock, "tea").sold) == (1, 2)
    assert (memory.events(PaymentRequested), memory.events(PaymentVoidRequested)) == ([], [])
    wish = RefundWish(amount_minor=None, quantities={}, restock=True, reason="r")
    staff = Viewer(subject_id=uuid4(), sees_all=True)
    with pytest.raises(ConflictError, match="order-not-captured"):
        memory.execute(RequestRefund(refund_id=uuid4(), order_id=order.id, caller=staff, wish=wish))
    canceled = memory.execute(CancelOrder(order_id=order.id, caller=staff))
    assert (canceled.state, canceled.payment_state) == (OrderState.CANCELED, PaymentState.NONE)
    assert [event.total_minor for event in memory.events(OrderCanceled)] == [0], "so that payments need not look for a payment"
    assert (memory.get(Stock, "tea").on_hand, memory.get(Stock, "tea").sold) == (2, 1)
    assert memory.events(PaymentVoidRequested) == []
    memory.assert_numbered()


# The quote.

LINES = st.lists(st.tuples(st.sampled_from(sorted(PRICES)), st.integers(1, 1_000)), min_size=1, max_size=8)


@given(LINES, st.integers(0, 5_000_000))
@settings(max_examples=80)
def test_a_quote_adds_up_and_is_never_negative(lines: list[tuple[str, int]], discount: int) -> None:
    checkout = start(shop())
    quote = pricing.quote(frozen(checkout, lines, 0))
    event = replace(frozen(checkout, lines), discounts=(Discount(code="a", amount_minor=discount),))
    priced = pricing.quote(event)
    assert quote.subtotal_minor == quote.total_minor == sum(PRICES[sku] * count for sku, count in lines)
    assert (
        priced.subtotal_minor - priced.discount_minor + priced.shipping_minor + priced.tax_minor
        == priced.total_minor
        == max(0, quote.total_minor - discount)
    )
    assert (priced.digest == quote.digest) == (discount == 0)
    assert pricing.demand(priced.lines) == {sku: sum(count for name, count in lines if name == sku) for sku, _ in lines}


def test_a_quote_does_not_take_the_carts_word_for_a_sum() -> None:
    checkout = start(shop())
    honest = frozen(checkout, [("tea", 2)])
    lying = replace(honest, total_minor=1, lines=(replace(honest.lines[0], total_minor=1),))
    assert pricing.quote(lying) == pricing.quote(honest)


# The machine.


def test_every_state_is_in_the_table_can_be_reached_and_comes_to_an_end() -> None:
    assert set(TRANSITIONS) == set(S) == reachable(S.STARTED)
    assert all(reachable(state) & FINAL for state in S)
    assert {S.CONFIRMED, S.FAILED, S.CANCELED, S.EXPIRED} == FINAL


@pytest.mark.parametrize("state", S)
def test_the_table_is_the_only_way_from_state_to_state(state: CheckoutState) -> None:
    checkout = replace(start(shop()), state=state)
    for to in S:
        if to in TRANSITIONS[state]:
            assert saga.move(checkout, to).state is to
        else:
            with pytest.raises(ConflictError, match="checkout-state"):
                saga.move(checkout, to)
