from dataclasses import astuple, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4, uuid5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from libs.common.contracts.cart import CartFreezeRefused, CartFrozen, Discount
from libs.common.contracts.checkout import (
    CheckoutCanceled,
    CheckoutExpired,
    CheckoutFailed,
    CheckoutRequested,
    OrderCanceled,
    OrderConfirmed,
    PaymentRequested,
    PaymentVoidRequested,
)
from libs.common.contracts.inventory import StockAdjusted
from libs.common.contracts.payments import (
    PaymentActionRequired,
    PaymentAuthorized,
    PaymentDeclined,
    PaymentExpired,
    PaymentVoided,
)
from libs.common.errors import ConflictError, NotFoundError
from services.checkout.domain import quote as pricing
from services.checkout.domain import saga
from services.checkout.domain.order import Order, OrderCounter, OrderState, PaymentState
from services.checkout.domain.refund import RefundWish
from services.checkout.domain.saga import FINAL, TRANSITIONS, Checkout, CheckoutState
from services.checkout.domain.stock import SequenceGapError, Stock
from services.checkout.handlers import HANDLERS, Caller, CancelCheckout, StartCheckout
from services.checkout.handlers.checkouts import TIMER, WakeCheckout
from services.checkout.handlers.orders import CancelOrder
from services.checkout.handlers.refunds import RequestRefund
from services.payments.domain import asking
from services.payments.domain.payment import Payment
from services.payments.domain.payment import PaymentState as MoneyState
from tests.shared.events import (
    cart_frozen_for,
    frozen_line,
    payment_authorized,
    payment_captured,
    stock_counted,
    tenant_updated,
)
from tests.unit.memory import NOW, TENANT, Memory

S = CheckoutState
PRICES = {"tea": 250, "gin": 1_999}
SUBJECT = UUID(int=1)
CART = UUID(int=100)


def shop(**stock: int) -> Memory:
    """A tenant with this much of each product."""
    memory = Memory(HANDLERS)
    memory.execute(tenant_updated(TENANT))
    for sku, quantity in stock.items():
        memory.execute(stock_counted(sku, quantity), sequence=1)
    return memory


def start(
    memory: Memory, cart_id: UUID = CART, subject_id: UUID = SUBJECT, body: str = "body", *, now: datetime = NOW
) -> Checkout:
    command = StartCheckout(
        checkout_id=uuid4(),
        cart_id=cart_id,
        subject_id=subject_id,
        method="pm_card_visa",
        email=None,
        body_digest=body,
        ttl_seconds=900,
    )
    checkout: Checkout = memory.execute(command, now=now)
    return checkout


def wake(memory: Memory, checkout: Checkout) -> str:
    """Its timer fires when it is due."""
    outcome: str = memory.execute(WakeCheckout(checkout_id=checkout.id), now=memory.timers[TIMER, checkout.id])
    return outcome


def cancel(memory: Memory, checkout: Checkout) -> Checkout:
    caller = Caller(subject_id=checkout.subject_id, sees_all=False)
    canceled: Checkout = memory.execute(CancelCheckout(checkout_id=checkout.id, caller=caller))
    return canceled


def frozen(checkout: Checkout, lines: list[tuple[str, int]], discount: int = 0) -> CartFrozen:
    frozen_lines = [frozen_line(sku, count, PRICES[sku]) for sku, count in lines]
    return cart_frozen_for(checkout, *frozen_lines, discount_minor=discount)


def authorized(checkout: Checkout, *, off_by: int = 0, currency: str = "GBP") -> PaymentAuthorized:
    return payment_authorized(checkout, amount_minor=(checkout.total_minor or 0) + off_by, currency=currency)


def declined(checkout: Checkout, code: str = "card_declined") -> PaymentDeclined:
    return PaymentDeclined(payment_id=checkout.payment_id, checkout_id=checkout.id, code=code)


def voided(checkout: Checkout) -> PaymentVoided:
    return PaymentVoided(payment_id=checkout.payment_id, checkout_id=checkout.id)


def lapsed(checkout: Checkout) -> PaymentExpired:
    return PaymentExpired(payment_id=checkout.payment_id, checkout_id=checkout.id)


def refused(checkout: Checkout) -> CartFreezeRefused:
    return CartFreezeRefused(cart_id=checkout.cart_id, checkout_id=checkout.id, reason="cart-empty")


def after(memory: Memory, checkout: Checkout, *events: Any) -> Checkout:
    """The checkout once these have come."""
    for event in events:
        memory.execute(event)
    return memory.get(Checkout, checkout.id)


def paying(memory: Memory, *lines: tuple[str, int]) -> Checkout:
    checkout = start(memory, cart_id=uuid4())
    return after(memory, checkout, frozen(checkout, list(lines) or [("tea", 2)]))


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
    staff = Caller(subject_id=uuid4(), sees_all=True)
    with pytest.raises(ConflictError, match="order-not-captured"):
        memory.execute(RequestRefund(refund_id=uuid4(), order_id=order.id, caller=staff, wish=wish))
    canceled = memory.execute(CancelOrder(order_id=order.id, caller=staff))
    assert (canceled.state, canceled.payment_state) == (OrderState.CANCELED, PaymentState.NONE)
    assert [event.total_minor for event in memory.events(OrderCanceled)] == [0], "so that payments need not look for a payment"
    assert (memory.get(Stock, "tea").on_hand, memory.get(Stock, "tea").sold) == (2, 1)
    assert memory.events(PaymentVoidRequested) == []
    memory.assert_numbered()


# Canceling and time.


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
        memory.execute(CancelCheckout(checkout_id=checkout.id, caller=Caller(subject_id=uuid4(), sees_all=False)))
    staff = Caller(subject_id=uuid4(), sees_all=True)
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
    payment = Payment(
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
    decision = asking.void(payment, TENANT, saga.void(checkout, reason), NOW)
    assert (decision is not None and decision.payment.state is MoneyState.VOIDING) == is_let_go


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


def _reachable(state: CheckoutState) -> set[CheckoutState]:
    reached = {state}
    for _ in S:
        reached |= {to for known in reached for to in TRANSITIONS[known]}
    return reached


def test_every_state_is_in_the_table_can_be_reached_and_comes_to_an_end() -> None:
    assert set(TRANSITIONS) == set(S) == _reachable(S.STARTED)
    assert all(_reachable(state) & FINAL for state in S)
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


class Market(RuleBasedStateMachine):
    """Any event in any order and any number of times, at whatever state a checkout has come to."""

    checkouts: Bundle[UUID] = Bundle("checkouts")

    def __init__(self) -> None:
        super().__init__()
        self.memory = shop(tea=6, gin=3)
        self.inventory = {"tea": 1, "gin": 1}
        self.seen: list[Any] = []
        self.held: dict[UUID, set[tuple[int, str]]] = {}
        self.states: dict[UUID, CheckoutState] = {}
        self.ends: dict[UUID, Checkout] = {}
        self.now = NOW

    def checkout(self, checkout_id: UUID) -> Checkout:
        return self.memory.get(Checkout, checkout_id)

    def arrive(self, event: Any, sequence: int = 1) -> None:
        if isinstance(event, PaymentAuthorized):
            self.held.setdefault(event.checkout_id, set()).add((event.amount_minor, event.currency))
        self.seen.append((event, sequence))
        self.memory.execute(event, sequence=sequence, now=self.now)

    @rule(target=checkouts, cart=st.integers(1, 3), subject=st.integers(1, 2), body=st.sampled_from("xy"))
    def someone_buys(self, cart: int, subject: int, body: str) -> UUID:
        live = {
            (each.cart_id, each.subject_id): each
            for each in self.memory.all(Checkout)
            if not each.is_final or each.state is S.CONFIRMED
        }
        before = live.get((UUID(int=cart), UUID(int=subject)))
        try:
            started = start(self.memory, UUID(int=cart), UUID(int=subject), body, now=self.now)
        except ConflictError as conflict:
            assert before is not None
            assert before.body_digest != body
            return UUID(conflict.members["checkout_id"])
        assert before is None or started == before
        return started.id

    @rule(target=checkouts, cart=st.integers(4, 9), sku=st.sampled_from(sorted(PRICES)), count=st.integers(1, 3))
    def someone_comes_as_far_as_paying(self, cart: int, sku: str, count: int) -> UUID:
        checkout = start(self.memory, UUID(int=cart), now=self.now)
        self.arrive(frozen(checkout, [(sku, count)]))
        return checkout.id

    @rule(
        which=checkouts,
        lines=st.lists(st.tuples(st.sampled_from(["tea", "gin", "gin", "rum"]), st.integers(1, 4)), max_size=3),
        discount=st.sampled_from([0, 0, 99, 99_999]),
    )
    def the_cart_freezes(self, which: UUID, lines: list[tuple[str, int]], discount: int) -> None:
        bought = [(sku, count) for sku, count in lines if sku in PRICES]
        worth = sum(PRICES[sku] * count for sku, count in bought)
        self.arrive(frozen(self.checkout(which), bought, min(discount, worth)))

    @rule(which=checkouts)
    def the_cart_refuses(self, which: UUID) -> None:
        self.arrive(refused(self.checkout(which)))

    @rule(which=checkouts, off_by=st.sampled_from([0, 0, 0, 0, 1]), currency=st.sampled_from(["GBP", "GBP", "GBP", "EUR"]))
    def money_is_held(self, which: UUID, off_by: int, currency: str) -> None:
        self.arrive(authorized(self.checkout(which), off_by=off_by, currency=currency))

    @rule(which=checkouts)
    def what_was_asked_for_is_held(self, which: UUID) -> None:
        self.arrive(authorized(self.checkout(which)))

    @rule(which=checkouts, code=st.sampled_from(["card_declined", "provider-rejected"]))
    def the_issuer_says_no(self, which: UUID, code: str) -> None:
        self.arrive(declined(self.checkout(which), code))

    @rule(which=checkouts)
    def the_hold_is_gone(self, which: UUID) -> None:
        self.arrive(voided(self.checkout(which)))

    @rule(which=checkouts)
    def the_hold_lapses(self, which: UUID) -> None:
        self.arrive(lapsed(self.checkout(which)))

    @rule(which=checkouts)
    def another_payments_money_is_held(self, which: UUID) -> None:
        event = replace(authorized(self.checkout(which)), payment_id=uuid5(which, "another"))
        self.memory.execute(event, now=self.now)

    @rule(which=checkouts)
    def the_payer_must_act(self, which: UUID) -> None:
        checkout = self.checkout(which)
        self.arrive(PaymentActionRequired(payment_id=checkout.payment_id, checkout_id=checkout.id))

    @rule(which=checkouts)
    def the_buyer_cancels(self, which: UUID) -> None:
        before = self.checkout(which)
        if before.is_final:
            with pytest.raises(ConflictError, match="checkout-final"):
                cancel(self.memory, before)
        else:
            assert cancel(self.memory, before).state in {S.CANCELED, S.CANCELING}

    @rule(which=checkouts, staff=st.booleans())
    def staff_call_the_order_off(self, which: UUID, staff: bool) -> None:
        caller = Caller(subject_id=UUID(int=99), sees_all=staff)
        order = next((each for each in self.memory.all(Order) if each.checkout_id == which), None)
        can = staff and order is not None and order.state is OrderState.CONFIRMED and not order.captured_minor
        command = CancelOrder(order_id=self.checkout(which).order_id, caller=caller)
        if can:
            assert self.memory.execute(command, now=self.now).state is OrderState.CANCELED
        else:
            with pytest.raises((ConflictError, NotFoundError)):
                self.memory.execute(command, now=self.now)

    @rule(minutes=st.sampled_from([1, 16]), twice=st.booleans())
    def time_passes(self, minutes: int, twice: bool) -> None:
        self.now += timedelta(minutes=minutes)
        for (name, key), at in list(self.memory.timers.items()):
            if at <= self.now:
                del self.memory.timers[name, key]
            for _ in range(1 + twice if at <= self.now else 0):
                assert name == TIMER
                self.memory.execute(WakeCheckout(checkout_id=key), now=self.now)

    @rule(which=checkouts)
    def money_is_captured(self, which: UUID) -> None:
        self.arrive(payment_captured(self.checkout(which)))

    @rule(sku=st.sampled_from(sorted(PRICES)), quantity=st.integers(0, 8), location=st.sampled_from(["main", "other"]))
    def the_shelf_is_counted(self, sku: str, quantity: int, location: str) -> None:
        self.inventory[sku] += 1
        self.arrive(stock_counted(sku, quantity, location), self.inventory[sku])

    @rule(sku=st.sampled_from(sorted(PRICES)), delta=st.integers(-5, 5), skip=st.booleans())
    def goods_come_and_go(self, sku: str, delta: int, skip: bool) -> None:
        event = StockAdjusted(sku=sku, location="main", delta=delta, reason="r")
        if skip:
            with pytest.raises(SequenceGapError):
                self.memory.execute(event, sequence=self.inventory[sku] + 2)
            return
        self.inventory[sku] += 1
        self.arrive(event, self.inventory[sku])

    @rule(chance=st.randoms(use_true_random=False))
    def something_comes_again(self, chance: Any) -> None:
        if self.seen:
            event, sequence = chance.choice(self.seen)
            self.memory.execute(event, sequence=sequence, now=self.now)

    @invariant()
    def stock_is_conserved_and_held_for_live_checkouts_alone(self) -> None:
        reserved, sold = dict.fromkeys(PRICES, 0), dict.fromkeys(PRICES, 0)
        for checkout in self.memory.all(Checkout):
            for allocation in checkout.allocations:
                count = sold if checkout.state is S.CONFIRMED else reserved
                assert checkout.state is S.CONFIRMED or not checkout.is_final, "an end that still holds stock"
                count[allocation.sku] += allocation.quantity
        for order in self.memory.all(Order):
            if order.state is OrderState.CANCELED:
                for allocation in order.allocations:
                    sold[allocation.sku] -= allocation.quantity
        for stock in self.memory.all(Stock):
            assert stock.adjusted == stock.on_hand + stock.reserved + stock.sold
            assert min(stock.on_hand, stock.reserved, stock.sold) >= 0
            assert (stock.reserved, stock.sold) == (reserved[stock.sku], sold[stock.sku])
            levels = stock.levels.values()
            assert all(min(level.on_hand, level.reserved, level.sold) >= 0 for level in levels)
            assert sum(level.on_hand + level.reserved + level.sold for level in levels) == stock.adjusted

    @invariant()
    def who_is_confirmed_has_paid_what_was_quoted_and_has_one_order(self) -> None:
        checkouts = {each.id: each for each in self.memory.all(Checkout)}
        orders = self.memory.all(Order)
        assert sorted(order.number for order in orders) == list(range(1, len(orders) + 1))
        assert [counter.last_number for counter in self.memory.all(OrderCounter)] == ([len(orders)] if orders else [])
        confirmed = {each.id for each in checkouts.values() if each.state is S.CONFIRMED}
        assert sorted(order.checkout_id for order in orders) == sorted(confirmed)
        assert sorted(event.checkout_id for event in self.memory.events(OrderConfirmed)) == sorted(confirmed)
        for order in orders:
            quote = checkouts[order.checkout_id].quote
            assert quote is not None
            if quote.total_minor:
                assert (quote.total_minor, quote.currency) in self.held[order.checkout_id]
            assert order.lines
            assert order.total_minor == quote.total_minor == sum(line.total_minor for line in order.lines) - order.discount_minor

    @invariant()
    def every_step_is_in_the_table_and_an_end_is_the_end(self) -> None:
        for checkout in self.memory.all(Checkout):
            before = self.states.get(checkout.id, S.STARTED)
            assert checkout.state in _reachable(before)
            self.states[checkout.id] = checkout.state
            ends = {S.FAILED, S.CANCELING, S.CANCELED, S.EXPIRING, S.EXPIRED}
            assert (checkout.reason is not None) == (checkout.state in ends)
            if checkout.is_final:
                assert self.ends.setdefault(checkout.id, checkout) == checkout, "an end that changed"

    @invariant()
    def whoever_waits_will_be_woken_and_payments_was_asked_to_let_go(self) -> None:
        asked = {event.payment_id for event in self.memory.events(PaymentVoidRequested)}
        for checkout in self.memory.all(Checkout):
            if not checkout.is_final:
                assert self.memory.timers[TIMER, checkout.id] <= max(checkout.expires_at, self.now + saga.PATIENCE)
            if checkout.state in {S.CANCELING, S.EXPIRING}:
                assert checkout.payment_id in asked
                assert self.memory.timers[TIMER, checkout.id] <= self.now + saga.PATIENCE

    @invariant()
    def every_word_is_said_once_and_numbered(self) -> None:
        self.memory.assert_numbered()
        said: list[tuple[CheckoutState, list[Any]]] = [
            (S.FAILED, self.memory.events(CheckoutFailed)),
            (S.CANCELED, self.memory.events(CheckoutCanceled)),
            (S.EXPIRED, self.memory.events(CheckoutExpired)),
        ]
        for state, events in said:
            ended = sorted(each.id for each in self.memory.all(Checkout) if each.state is state)
            assert sorted(event.checkout_id for event in events) == ended
        off = sorted(each.id for each in self.memory.all(Order) if each.state is OrderState.CANCELED)
        assert sorted(event.order_id for event in self.memory.events(OrderCanceled)) == off
        asked = [event.payment_id for event in self.memory.events(PaymentRequested)]
        assert len(set(asked)) == len(asked)
        free = {each.payment_id for each in self.memory.all(Checkout) if each.is_free}
        assert not free & set(asked), "money was asked for where none is owed"


def test_no_order_of_events_breaks_a_promise() -> None:
    run_state_machine_as_test(Market, settings=settings(max_examples=200, stateful_step_count=40, deadline=None))
