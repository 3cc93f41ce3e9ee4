"""Checkouts that rest, reserved, until their buyer has seen the quote: the only reservations that time alone can end."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.checkout import CheckoutCanceled, CheckoutExpired, CheckoutFailed, PaymentRequested
from libs.common.decision import Viewer
from libs.common.errors import ConflictError, RejectedError
from services.checkout.domain import stock as shelf
from services.checkout.domain.order import Order
from services.checkout.domain.quote import Address
from services.checkout.domain.saga import Checkout, CheckoutState
from services.checkout.domain.stock import Allocation, Stock, StockPolicy
from services.checkout.handlers import CancelCheckout, ResumeCheckout, StartCheckout
from services.checkout.handlers.checkouts import WakeCheckout
from tests.shared.events import cart_frozen_for, frozen_line, payment_authorized, tenant_updated
from tests.unit.checkout.books import assert_kept
from tests.unit.checkout.shop import shop as tracked_shop
from tests.unit.memory import NOW, TENANT, Memory

TTL = timedelta(seconds=900)
LATER = NOW + TTL
FREELY: Mapping[str, Any] = {"share_percent": 100, "reservations_per_buyer": 100}
ANYBODY: Mapping[str, Any] = {"subject_id": UUID(int=1), "email": None}


def shop(pay_later: Mapping[str, Any] = FREELY, **stock: int) -> Memory:
    """A shop that leaves it to its buyers how much they reserve, unless told otherwise."""
    memory = tracked_shop(**stock)
    memory.execute(tenant_updated(TENANT, version=2, settings={"pay_later": dict(pay_later)}), sequence=2)
    return memory


def begin(memory: Memory, method: str = "", *, now: datetime = NOW, who: Mapping[str, Any] = ANYBODY, **lines: int) -> Checkout:
    """A checkout of these lines, up to where it rests or is being paid for."""
    command = StartCheckout(
        checkout_id=uuid4(),
        cart_id=uuid4(),
        method=method,
        body_digest="body",
        ttl_seconds=int(TTL.total_seconds()),
        **who,
    )
    started: Checkout = memory.execute(command, now=now)
    frozen = [frozen_line(sku, quantity, 100) for sku, quantity in lines.items()]
    memory.execute(cart_frozen_for(started, *frozen), now=now)
    return memory.get(Checkout, started.id)


def resume(memory: Memory, checkout: Checkout, method: str = "pm_card_visa", *, now: datetime = NOW) -> Checkout:
    """Say how it is paid for."""
    caller = Viewer(subject_id=checkout.subject_id, sees_all=False)
    resumed: Checkout = memory.execute(ResumeCheckout(checkout_id=checkout.id, caller=caller, method=method), now=now)
    return resumed


def levels(memory: Memory, sku: str) -> tuple[int, int]:
    stock = memory.get(Stock, sku)
    assert_kept(stock)
    return stock.on_hand, stock.reserved


def test_who_pays_later_sees_the_quote_first_and_nobody_is_asked_for_money_before() -> None:
    memory = shop(tea=5)
    resting = begin(memory, tea=2)
    assert (resting.state, resting.total_minor, resting.is_waiting_for_payer) == (CheckoutState.RESERVED, 200, True)
    assert (levels(memory, "tea"), memory.events(PaymentRequested)) == ((3, 2), [])
    with pytest.raises(RejectedError, match="payment-required"):
        resume(memory, resting, method="")
    paying = resume(memory, resting)
    assert (paying.state, levels(memory, "tea")) == (CheckoutState.PAYING, (3, 2))
    [requested] = memory.events(PaymentRequested)
    assert (requested.amount_minor, requested.method, requested.quote_hash) == (200, "pm_card_visa", resting.quote.digest)  # type: ignore[union-attr]
    assert memory.get(Stock, "tea").holds == {}, "what is being paid for does not expire"
    assert resume(memory, paying) == paying
    memory.assert_numbered()


def test_money_that_was_never_asked_for_makes_no_order_of_what_rests() -> None:
    memory = shop(tea=5)
    resting = begin(memory, tea=2)
    unasked = payment_authorized(resting, amount_minor=200)
    with pytest.raises(ConflictError, match="checkout-state"):
        memory.execute(unasked)
    assert (memory.get(Checkout, resting.id), levels(memory, "tea"), memory.all(Order)) == (resting, (3, 2), [])


def test_a_shortage_gives_up_what_expired_unpaid_and_touches_nothing_else() -> None:
    memory = shop(tea=5)
    expired, paying = begin(memory, tea=2), begin(memory, "pm_card_visa", tea=1)
    alive = begin(memory, now=NOW + timedelta(seconds=1), tea=2)
    assert begin(memory, "pm_card_visa", now=LATER - timedelta(seconds=1), tea=1).reason == "out-of-stock"
    taken = begin(memory, "pm_card_visa", now=LATER, tea=2)
    assert (taken.state, levels(memory, "tea")) == (CheckoutState.PAYING, (0, 5))
    assert begin(memory, "pm_card_visa", now=LATER, tea=1).reason == "out-of-stock"
    assert resume(memory, alive, now=LATER).state is CheckoutState.PAYING
    assert memory.get(Checkout, paying.id) == paying
    memory.execute(WakeCheckout(checkout_id=expired.id), now=LATER)
    assert (memory.get(Checkout, expired.id).state, levels(memory, "tea")) == (CheckoutState.EXPIRED, (0, 5))
    assert len(memory.events(CheckoutExpired)) == 1


def test_a_hold_that_expired_and_that_nobody_needed_ends_with_its_checkout() -> None:
    memory = shop(tea=5, mug=1)
    first, second = begin(memory, tea=2, mug=1), begin(memory, tea=3)
    assert resume(memory, first, now=LATER).state is CheckoutState.EXPIRED, "too late, though it was still held"
    assert (levels(memory, "tea"), levels(memory, "mug")) == ((2, 3), (1, 0))
    memory.execute(WakeCheckout(checkout_id=second.id), now=LATER)
    assert levels(memory, "tea") == (5, 0)


def test_a_canceled_hold_is_free_at_once() -> None:
    memory = shop(tea=5)
    resting = begin(memory, tea=2)
    caller = Viewer(subject_id=resting.subject_id, sees_all=False)
    canceled: Checkout = memory.execute(CancelCheckout(checkout_id=resting.id, caller=caller))
    assert (canceled.state, levels(memory, "tea")) == (CheckoutState.CANCELED, (5, 0))
    assert len(memory.events(CheckoutCanceled)) == 1


def test_what_was_swept_from_a_buyer_is_reserved_anew_or_the_checkout_fails_and_holds_nothing() -> None:
    memory = shop(tea=5, mug=5)
    resting = begin(memory, tea=2, mug=2)
    # A sweep by a clock that is ahead of the buyer's: their checkout is alive, its hold of tea is gone.
    stock = memory.get(Stock, "tea")
    memory.rows[Stock, TENANT, "tea"] = shelf.sweep(stock, LATER)
    again = resume(memory, resting)
    assert (again.state, levels(memory, "tea"), levels(memory, "mug")) == (CheckoutState.PAYING, (3, 2), (3, 2))
    other = begin(memory, tea=2, mug=2)
    memory.rows[Stock, TENANT, "tea"] = shelf.sweep(memory.get(Stock, "tea"), LATER)
    begin(memory, "pm_card_visa", tea=3)
    failed = resume(memory, other)
    assert (failed.state, failed.reason) == (CheckoutState.FAILED, "out-of-stock")
    assert (levels(memory, "tea"), levels(memory, "mug")) == ((0, 5), (3, 2))
    assert len(memory.events(CheckoutFailed)) == 1


def _somebody(number: int, **members: Any) -> Mapping[str, Any]:
    return {"subject_id": UUID(int=number), "email": None, **members}


def test_what_nobody_pays_for_is_a_share_of_the_shelf_and_buyers_have_the_rest() -> None:
    memory = shop({"share_percent": 40}, tea=10)
    first = begin(memory, who=_somebody(1), tea=3)
    refused = begin(memory, who=_somebody(2), tea=2)
    assert (refused.state, refused.reason) == (CheckoutState.FAILED, "reservation-limit")
    [told] = memory.events(CheckoutFailed)
    assert (told.reason, levels(memory, "tea")) == ("out-of-stock", (7, 3)), "others read a word that they know"
    assert begin(memory, "pm_card_visa", who=_somebody(2), tea=7).state is CheckoutState.PAYING, "who pays gets all the rest"
    assert resume(memory, first).state is CheckoutState.PAYING
    assert levels(memory, "tea") == (0, 10)


def test_without_any_setting_half_a_shelf_is_the_most_and_what_expired_does_not_count() -> None:
    memory = tracked_shop(tea=4)
    assert begin(memory, who=_somebody(1), tea=3).reason == "reservation-limit"
    assert begin(memory, who=_somebody(1), tea=2).state is CheckoutState.RESERVED
    assert begin(memory, who=_somebody(2), tea=1).reason == "reservation-limit"
    assert begin(memory, now=LATER, who=_somebody(2), tea=1).state is CheckoutState.RESERVED
    assert levels(memory, "tea") == (3, 1)


@pytest.mark.parametrize(
    "again",
    [
        _somebody(1),
        _somebody(2, email="A@b.test"),
        _somebody(2, shipping_address=Address(name="a b", line1="1 HIGH ST", city="Leeds", postal_code="LS1", country="GB")),
    ],
)
def test_one_buyer_is_one_by_subject_by_email_or_by_address(again: Mapping[str, Any]) -> None:
    memory = shop({"share_percent": 100, "reservations_per_buyer": 2}, tea=10)
    home = Address(name="A B", line1="1 High St", city="Leeds", postal_code="LS1", country="GB")
    me = _somebody(1, email="a@b.test", shipping_address=home)
    for _ in range(2):
        assert begin(memory, who=me, tea=1).state is CheckoutState.RESERVED
    assert begin(memory, who=again, tea=1).reason == "reservation-limit"
    assert begin(memory, who=_somebody(3), tea=1).state is CheckoutState.RESERVED
    assert begin(memory, "pm_card_visa", who=again, tea=1).state is CheckoutState.PAYING


def test_guests_pay_at_once_unless_their_shop_says_otherwise() -> None:
    guest = _somebody(1, is_guest=True)
    memory = shop(tea=5)
    with pytest.raises(RejectedError, match="pay-later-refused"):
        begin(memory, who=guest, tea=1)
    assert begin(memory, "pm_card_visa", who=guest, tea=1).state is CheckoutState.PAYING
    assert begin(shop({**FREELY, "guests": True}, tea=5), who=guest, tea=1).state is CheckoutState.RESERVED


def test_goods_that_nobody_counts_or_that_are_still_to_come_are_reserved_by_anybody() -> None:
    memory = shop({"share_percent": 0}, tea=0, book=1)
    memory.rows[Stock, TENANT, "tea"] = replace(memory.get(Stock, "tea"), policy=StockPolicy.BACKORDER)
    memory.rows[Stock, TENANT, "book"] = replace(memory.get(Stock, "book"), policy=StockPolicy.UNTRACKED)
    assert begin(memory, tea=3, book=9).state is CheckoutState.RESERVED


MOVES = st.lists(
    st.tuples(st.sampled_from(["hold", "keep", "give up", "sweep", "deliver"]), st.integers(0, 5), st.integers(1, 6)),
    max_size=40,
)


@given(MOVES, st.sampled_from([StockPolicy.TRACKED, StockPolicy.BACKORDER]))
@settings(max_examples=200, deadline=None)
def test_whatever_expires_or_is_kept_each_unit_is_held_by_one_and_freed_once(
    moves: list[tuple[str, int, int]], policy: StockPolicy
) -> None:
    stock = Stock(tenant_id=TENANT, sku="tea", policy=policy)
    held: dict[str, tuple[datetime, list[Allocation]]] = {}
    kept: list[Allocation] = []
    for number, (move, what, size) in enumerate(moves):
        holder, at = str(what), NOW + timedelta(minutes=size)
        match move:
            case "hold" if holder not in held and (found := shelf.reserve(stock, size)):
                stock = shelf.hold(found[0], holder, found[1], at)
                held[holder] = (at, found[1])
            case "keep":
                still = shelf.keep(stock, holder)
                assert (still is None) == (holder not in held)
                if still:
                    stock = still
                    kept += held.pop(holder)[1]
            case "give up":
                stock = shelf.give_up(stock, holder)
                held.pop(holder, None)
            case "sweep":
                stock = shelf.sweep(stock, at)
                held = {name: each for name, each in held.items() if each[0] > at}
            case _:
                stock = shelf.adjust(stock, "main", size, stock.inventory_sequence + 1)
        assert_kept(stock)
        assert set(stock.holds) == set(held), number
        promised = [each for _, found in held.values() for each in found] + kept
        assert stock.reserved + stock.promised == sum(each.quantity for each in promised)
    for allocation in kept:
        stock = shelf.release(stock, allocation)
    stock = shelf.sweep(stock, NOW + timedelta(days=1))
    assert replace(stock, inventory_sequence=0) == _untouched(stock)


def _untouched(stock: Stock) -> Stock:
    """The same product as if nobody had ever wanted any."""
    levels: dict[str, Any] = {
        place: replace(level, on_hand=stock.adjusted, reserved=0, sold=0) for place, level in stock.levels.items()
    }
    return Stock(tenant_id=TENANT, sku="tea", policy=stock.policy, on_hand=stock.adjusted, adjusted=stock.adjusted, levels=levels)
