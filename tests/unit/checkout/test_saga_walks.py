"""No order of messages, requests and timers breaks a promise of the saga."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from libs.common.contracts.checkout import (
    CheckoutCanceled,
    CheckoutExpired,
    CheckoutFailed,
    OrderCanceled,
    OrderConfirmed,
    PaymentRequested,
    PaymentVoidRequested,
)
from libs.common.contracts.inventory import StockAdjusted
from libs.common.contracts.payments import (
    PaymentActionRequired,
    PaymentAuthorized,
)
from libs.common.decision import Viewer
from libs.common.errors import ConflictError, NotFoundError
from services.checkout.domain import saga
from services.checkout.domain.order import Order, OrderCounter, OrderState
from services.checkout.domain.saga import Checkout, CheckoutState
from services.checkout.domain.stock import SequenceGapError, Stock
from services.checkout.handlers.checkouts import TIMER, WakeCheckout
from services.checkout.handlers.orders import CancelOrder
from tests.shared.events import payment_captured, stock_counted
from tests.unit.checkout.shop import (
    PRICES,
    S,
    authorized,
    cancel,
    declined,
    frozen,
    lapsed,
    reachable,
    refused,
    shop,
    start,
    voided,
)
from tests.unit.memory import NOW


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
        caller = Viewer(subject_id=UUID(int=99), sees_all=staff)
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
            assert checkout.state in reachable(before)
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
