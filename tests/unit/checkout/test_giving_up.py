"""Checkouts that are canceled, take too long, or wait for a payer; and one that fails after all."""

from dataclasses import astuple
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.contracts import Event
from libs.common.contracts.checkout import (
    CheckoutCanceled,
    CheckoutExpired,
    OrderCanceled,
    PaymentRequested,
    PaymentVoidRequested,
)
from libs.common.contracts.payments import (
    PaymentActionRequired,
)
from libs.common.decision import Viewer
from libs.common.errors import ConflictError, NotFoundError
from services.checkout.domain import saga
from services.checkout.domain.order import Order, OrderState
from services.checkout.domain.saga import Checkout, CheckoutState
from services.checkout.domain.stock import Stock
from services.checkout.domain.stray import StrayMoney
from services.checkout.handlers import CancelCheckout, StartCheckout
from services.checkout.handlers.checkouts import WakeCheckout
from services.payments.domain.payment import asking
from services.payments.domain.payment.payment import Payment
from services.payments.domain.payment.payment import PaymentState as MoneyState
from tests.shared.events import payment_captured, tenant_updated
from tests.unit.checkout.shop import (
    CART,
    SUBJECT,
    S,
    after,
    authorized,
    cancel,
    declined,
    frozen,
    lapsed,
    paying,
    refused,
    shop,
    start,
    voided,
    wake,
)
from tests.unit.memory import NOW, TENANT


def test_a_checkout_that_holds_nothing_is_canceled_at_once_and_its_cart_is_told() -> None:
    memory = shop(tea=2)
    checkout = cancel(memory, start(memory))
    assert (checkout.state, checkout.reason) == (S.CANCELED, "canceled")
    assert astuple(memory.events(CheckoutCanceled)[0]) == (checkout.id, CART, "canceled")
    assert after(memory, checkout, frozen(checkout, [("tea", 1)])) == checkout
    with pytest.raises(ConflictError, match="checkout-final"):
        cancel(memory, checkout)


def test_a_checkout_that_is_being_paid_is_canceled_once_payments_has_let_go_and_never_becomes_an_order() -> None:
    memory = shop(tea=2)
    checkout = cancel(memory, paying(memory))
    assert checkout.state is S.CANCELING
    assert cancel(memory, checkout) == checkout
    checkout = after(memory, checkout, authorized(checkout))
    assert (checkout.state, memory.get(Stock, "tea").reserved) == (S.CANCELING, 2)
    checkout = after(memory, checkout, voided(checkout))
    assert (checkout.state, checkout.reason, memory.get(Stock, "tea").on_hand) == (S.CANCELED, "canceled", 2)
    assert [event.reason for event in memory.events(PaymentVoidRequested)] == ["canceled"]
    assert (memory.all(Order), len(memory.events(CheckoutCanceled))) == ([], 1)


def test_nobody_else_cancels_a_shoppers_checkout() -> None:
    memory = shop(tea=2)
    checkout = start(memory)
    with pytest.raises(NotFoundError):
        memory.execute(CancelCheckout(checkout_id=checkout.id, caller=Viewer(subject_id=uuid4(), sees_all=False)))
    staff = Viewer(subject_id=uuid4(), sees_all=True)
    assert memory.execute(CancelCheckout(checkout_id=checkout.id, caller=staff)).state is S.CANCELED


def test_what_no_cart_answers_expires_when_its_time_is_up_and_not_before() -> None:
    memory = shop(tea=2)
    checkout = start(memory)
    assert memory.execute(WakeCheckout(checkout_id=checkout.id), now=NOW + timedelta(seconds=899)) == "early"
    assert wake(memory, checkout) == "expired"
    checkout = memory.get(Checkout, checkout.id)
    assert (checkout.state, checkout.reason) == (S.EXPIRED, "timed-out")
    assert astuple(memory.events(CheckoutExpired)[0]) == (checkout.id, CART, "timed-out")
    assert wake(memory, checkout) == "over"


@pytest.mark.parametrize(
    ("answers", "state", "reason"),
    [
        ([voided], S.EXPIRED, "timed-out"),
        ([lapsed], S.EXPIRED, "timed-out"),
        ([declined], S.FAILED, "payment-declined"),
        ([authorized], S.CONFIRMED, None),
        ([lambda each: authorized(each, off_by=1), voided], S.FAILED, "amount-mismatch"),
    ],
)
def test_a_payment_that_takes_too_long_is_asked_to_be_let_go_of_and_its_answer_decides(
    answers: list[Any], state: CheckoutState, reason: str | None
) -> None:
    memory = shop(tea=2)
    checkout = paying(memory)
    assert wake(memory, checkout) == "expiring"
    assert [event.reason for event in memory.events(PaymentVoidRequested)] == ["timed-out"]
    assert memory.get(Stock, "tea").reserved == 2, "nobody knows yet whether money is held"
    checkout = after(memory, checkout, *[answer(checkout) for answer in answers])
    assert (checkout.state, checkout.reason) == (state, reason)
    stock = memory.get(Stock, "tea")
    assert (stock.on_hand, stock.reserved, stock.sold) == ((0, 0, 2) if state is S.CONFIRMED else (2, 0, 0))


@pytest.mark.parametrize(("reason", "is_let_go"), [("timed-out", False), ("canceled", True), ("amount-mismatch", True)])
def test_payments_lets_money_that_was_held_in_time_be_and_any_other_that_is_unwanted_go(reason: Any, is_let_go: bool) -> None:
    memory = shop(tea=2)
    checkout = paying(memory)
    decision = asking.void(held(checkout), TENANT, saga.void(checkout, reason), NOW)
    assert (decision is not None and decision.payment.state is MoneyState.VOIDING) == is_let_go


def held(checkout: Checkout) -> Payment:
    """Payments' own row, once the money of this checkout is held."""
    return Payment(
        tenant_id=TENANT,
        id=checkout.payment_id,
        checkout_id=checkout.id,
        amount_minor=500,
        currency="GBP",
        state=MoneyState.AUTHORIZED,
        intent_id="pi_1",
        authorized_minor=500,
        created_at=NOW,
    )


def test_a_lost_word_of_money_that_is_held_is_said_again_to_a_checkout_that_asks_and_makes_its_one_order() -> None:
    memory = shop(tea=2)
    checkout = paying(memory)
    words: list[Event] = []
    for _ in range(2):
        wake(memory, checkout)
        void = memory.events(PaymentVoidRequested)[-1]
        decision = asking.void(held(checkout), TENANT, void, NOW)
        assert decision is not None
        assert (decision.payment.state, decision.planned) == (MoneyState.AUTHORIZED, None)
        words += decision.events
    checkout = after(memory, checkout, *words)
    assert checkout.state is S.CONFIRMED
    assert [order.payment_id for order in memory.all(Order)] == [checkout.payment_id]
    assert memory.all(StrayMoney) == [], "the second word changes nothing"


def test_a_buyer_who_cancels_what_is_expiring_gets_no_order_even_if_the_money_was_held_in_time() -> None:
    memory = shop(tea=2)
    checkout = paying(memory)
    wake(memory, checkout)
    checkout = cancel(memory, checkout)
    checkout = after(memory, checkout, authorized(checkout))
    assert (checkout.state, memory.all(Order)) == (S.CANCELING, [])
    assert [event.reason for event in memory.events(PaymentVoidRequested)] == ["timed-out", "canceled"]


def test_payments_that_do_not_answer_are_asked_again_and_nothing_is_concluded_from_their_silence() -> None:
    memory = shop(tea=2)
    checkout = paying(memory)
    assert [wake(memory, checkout) for _ in range(4)] == ["expiring", "overdue", "overdue", "overdue"]
    checkout = memory.get(Checkout, checkout.id)
    assert (checkout.state, memory.get(Stock, "tea").reserved) == (S.EXPIRING, 2)
    assert {event.reason for event in memory.events(PaymentVoidRequested)} == {"timed-out"}
    assert after(memory, checkout, voided(checkout)).state is S.EXPIRED


def test_money_that_was_taken_before_the_cancellation_was_heard_of_does_not_keep_the_checkout_waiting_for_ever() -> None:
    memory = shop(tea=2)
    checkout = cancel(memory, paying(memory))
    memory.execute(payment_captured(checkout))
    assert (wake(memory, checkout), wake(memory, checkout)) == ("taken", "over")
    checkout = memory.get(Checkout, checkout.id)
    assert (checkout.state, memory.get(Stock, "tea").on_hand, memory.all(Order)) == (S.CANCELED, 2, [])
    assert len(memory.events(PaymentVoidRequested)) == 1, "payments remembers that it is not wanted, and gives it back"


def test_money_that_was_taken_past_us_while_it_was_being_paid_for_goes_back_and_the_buyer_is_not_kept_waiting() -> None:
    memory = shop(tea=2)
    checkout = paying(memory)
    memory.execute(payment_captured(checkout))
    memory.execute(payment_captured(checkout))
    assert (wake(memory, checkout), wake(memory, checkout)) == ("taken", "over")
    checkout = memory.get(Checkout, checkout.id)
    assert (checkout.state, checkout.reason, memory.get(Stock, "tea").on_hand) == (S.FAILED, "amount-mismatch", 2)
    assert [event.payment_id for event in memory.events(PaymentVoidRequested)] == [checkout.payment_id]
    assert memory.all(Order) == []


def test_a_challenge_is_shown_until_the_payer_has_met_it() -> None:
    memory = shop(tea=2)
    checkout = paying(memory)
    told = PaymentActionRequired(payment_id=checkout.payment_id, checkout_id=checkout.id)
    checkout = after(memory, checkout, told)
    assert (checkout.state, checkout.is_waiting_for_payer) == (S.PAYING, True)
    assert after(memory, checkout, told) == checkout
    checkout = after(memory, checkout, authorized(checkout))
    assert (checkout.state, checkout.is_waiting_for_payer) == (S.CONFIRMED, False)


def test_payments_is_told_who_confirms_and_when_the_tenant_wants_the_money_taken() -> None:
    memory = shop(tea=9)
    settings = {"capture": "on-shipment"}
    update = tenant_updated(TENANT, version=2, settings=settings)
    paying(memory)
    memory.execute(update)
    command = StartCheckout(
        checkout_id=uuid4(),
        cart_id=CART,
        subject_id=SUBJECT,
        method="",
        confirmation="client",
        email=None,
        body_digest="",
        ttl_seconds=900,
    )
    checkout: Checkout = memory.execute(command)
    after(memory, checkout, frozen(checkout, [("tea", 1)]))
    asked = [(event.capture, event.method, event.confirmation) for event in memory.events(PaymentRequested)]
    assert asked == [("on-confirmation", "pm_card_visa", None), ("on-shipment", "", "client")]


@pytest.mark.parametrize("end", [voided, lapsed])
def test_a_capture_that_fails_for_good_calls_the_order_off_and_puts_its_goods_back(end: Any) -> None:
    memory = shop(tea=2)
    checkout = paying(memory)
    checkout = after(memory, checkout, authorized(checkout))
    assert after(memory, checkout, end(checkout), end(checkout)) == checkout, "a confirmed checkout stays one"
    order = memory.get(Order, checkout.order_id)
    assert (order.state, order.reason) == (OrderState.CANCELED, "payment-capture-failed")
    assert [event.reason for event in memory.events(OrderCanceled)] == ["payment-capture-failed"]
    stock = memory.get(Stock, "tea")
    assert (stock.on_hand, stock.reserved, stock.sold) == (2, 0, 0)
    memory.assert_numbered()


def test_one_subject_has_one_live_checkout_of_a_cart_and_a_new_one_after_a_failure() -> None:
    memory = shop(tea=2)
    first = start(memory)
    assert start(memory) == first
    with pytest.raises(ConflictError, match="checkout-exists") as conflict:
        start(memory, body="another")
    assert conflict.value.members == {"checkout_id": str(first.id)}
    assert start(memory, subject_id=UUID(int=2)).id != first.id
    after(memory, first, refused(first))
    second = start(memory, body="another")
    assert second.id != first.id
    second = after(memory, second, frozen(second, [("tea", 1)]))
    second = after(memory, second, authorized(second))
    assert start(memory, body="another") == second, "confirmed: bought is bought"
    memory.assert_numbered()
