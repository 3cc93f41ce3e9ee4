"""A buyer is asked for no more than they know of, and for no price that is over."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.contracts.checkout import CheckoutExpired, CheckoutFailed, OrderConfirmed, PaymentRequested, PaymentVoidRequested
from libs.common.decision import Viewer
from services.checkout.domain.saga import Checkout, CheckoutState
from services.checkout.domain.stock import Stock
from services.checkout.handlers import ResumeCheckout, StartCheckout
from services.checkout.handlers.checkouts import TIMER, WakeCheckout
from tests.shared.events import cart_frozen_for, frozen_line, payment_authorized
from tests.unit.checkout.shop import shop
from tests.unit.memory import NOW, Memory

S = CheckoutState
SOON = NOW + timedelta(seconds=60)
SHOPPER = UUID(int=1)
LATER: Mapping[str, Any] = {"method": ""}
IN_BROWSER: Mapping[str, Any] = {"method": "", "confirmation": "client"}


def begin(memory: Memory, **how: Any) -> Checkout:
    usual = {"checkout_id": uuid4(), "cart_id": uuid4(), "subject_id": SHOPPER, "method": "pm_card_visa", "email": None}
    started: Checkout = memory.execute(StartCheckout(**{**usual, "body_digest": "body", "ttl_seconds": 900, **how}))
    return started


def freeze(
    memory: Memory,
    checkout: Checkout,
    *prices: tuple[int, int | None],
    until: datetime | None = None,
    now: datetime = NOW,
) -> Checkout:
    """The cart answers with one of each at these prices, beside those at which they were put in."""
    lines = [frozen_line(sku, 1, unit, price_was_minor=was) for sku, (unit, was) in zip(("tea", "gin"), prices, strict=False)]
    memory.execute(replace(cart_frozen_for(checkout, *lines), prices_valid_until=until), now=now)
    return memory.get(Checkout, checkout.id)


@pytest.mark.parametrize("how", [{}, LATER, IN_BROWSER])
def test_a_checkout_at_a_price_that_rose_ends_with_the_new_quote_and_holds_and_asks_for_nothing(how: Mapping[str, Any]) -> None:
    memory = shop(tea=5, gin=5)
    ended = freeze(memory, begin(memory, **how), (10_000, 1), (800, 900))
    assert (ended.state, ended.reason, ended.total_minor) == (S.FAILED, "price-changed", 10_800)
    assert ended.quote is not None
    assert [line.unit_minor for line in ended.quote.lines] == [10_000, 800]
    assert (memory.get(Stock, "tea").reserved, ended.allocations, ended.asks_for_money) == (0, (), False)
    assert memory.events(PaymentRequested) == []
    # Others know no such reason: there was none for this buyer.
    assert [(event.cart_id, event.reason) for event in memory.events(CheckoutFailed)] == [(ended.cart_id, "product-unavailable")]


def test_who_accepts_prices_pays_those_of_the_moment_and_a_fall_is_passed_on_unasked() -> None:
    memory = shop(tea=5, gin=5)
    accepted = freeze(memory, begin(memory, accept_price_changes=True), (10_000, 1))
    fallen = freeze(memory, begin(memory), (800, 900))
    assert [(each.state, each.total_minor) for each in (accepted, fallen)] == [(S.PAYING, 10_000), (S.PAYING, 800)]
    assert [event.amount_minor for event in memory.events(PaymentRequested)] == [10_000, 800]


def test_prices_that_are_over_when_the_cart_is_heard_of_are_not_asked_for() -> None:
    memory = shop(tea=5, gin=5)
    late = freeze(memory, begin(memory), (500, None), until=NOW)
    assert (late.state, late.reason, memory.get(Stock, "tea").reserved) == (S.EXPIRED, "timed-out", 0)
    assert (memory.events(PaymentRequested), len(memory.events(CheckoutExpired))) == ([], 1)


def test_who_pays_later_may_think_it_over_for_as_long_as_the_price_counts() -> None:
    memory = shop(tea=5, gin=5)
    caller = Viewer(subject_id=SHOPPER, sees_all=False)
    resting, other = (freeze(memory, begin(memory, **LATER), (500, None), until=SOON) for _ in range(2))
    assert (resting.state, resting.expires_at, memory.timers[TIMER, resting.id]) == (S.RESERVED, SOON, SOON)
    pay = ResumeCheckout(checkout_id=resting.id, caller=caller, method="pm_card_visa")
    assert memory.execute(pay, now=SOON).state is S.EXPIRED
    assert memory.execute(WakeCheckout(checkout_id=other.id), now=SOON) == "expired"
    assert (memory.events(PaymentRequested), memory.get(Stock, "tea").reserved) == ([], 0)


def test_who_confirms_in_their_own_browser_is_held_to_the_price_while_it_counts_and_no_longer() -> None:
    memory = shop(tea=5, gin=5)
    paying = freeze(memory, begin(memory, **IN_BROWSER), (500, None), until=SOON)
    assert (paying.state, memory.timers[TIMER, paying.id]) == (S.PAYING, SOON)
    assert memory.execute(WakeCheckout(checkout_id=paying.id), now=SOON) == "expiring"
    assert [event.reason for event in memory.events(PaymentVoidRequested)] == ["timed-out"]


def test_who_said_with_what_they_pay_while_the_price_counted_has_it() -> None:
    memory = shop(tea=5, gin=5)
    paying = freeze(memory, begin(memory), (500, None), until=SOON)
    assert (paying.expires_at, memory.timers[TIMER, paying.id]) == (NOW + timedelta(seconds=900),) * 2
    memory.execute(payment_authorized(paying), now=SOON)
    assert [event.totals.total_minor for event in memory.events(OrderConfirmed)] == [500]


def test_another_address_to_write_to_is_taken_while_the_checkout_lives_and_none_is_forgotten() -> None:
    memory = shop(tea=5, gin=5)
    same = {"cart_id": uuid4()}
    first = begin(memory, email="tpyo@a.test", **same)
    assert begin(memory, email="typo@a.test", **same).id == first.id
    paying = freeze(memory, first, (500, None))
    assert paying.email == "typo@a.test"
    corrected = begin(memory, email="buyer@a.test", **same)
    assert (corrected.state, corrected.email) == (S.PAYING, "buyer@a.test")
    assert begin(memory, email=None, **same) == begin(memory, email="buyer@a.test", **same) == corrected
    memory.execute(payment_authorized(paying))
    over = memory.get(Checkout, first.id)
    assert begin(memory, email="late@a.test", **same) == over
    assert (over.state, over.email) == (S.CONFIRMED, "buyer@a.test")
    memory.assert_numbered()
