from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.inventory import StockAdjusted
from libs.common.errors import ConflictError, NotYetError
from services.checkout.domain import stock as shelf
from services.checkout.domain.stock import Allocation, Level, SequenceGapError, Stock, StockPolicy
from services.checkout.handlers import HANDLERS
from tests.shared.events import stock_counted, tenant_updated
from tests.unit.checkout.books import assert_kept
from tests.unit.memory import TENANT, Memory

EMPTY = Stock(tenant_id=TENANT, sku="tea")


LOCATIONS = st.sampled_from(["a", "b", "c"])
QUANTITIES = st.integers(1, 20)
MOVES = st.one_of(
    st.tuples(st.just("count"), LOCATIONS, st.integers(0, 20)),
    st.tuples(st.just("adjust"), LOCATIONS, st.integers(-20, 20)),
    st.tuples(st.just("reserve"), st.none(), QUANTITIES),
    st.tuples(st.just("sell"), st.integers(0, 5), st.none()),
    st.tuples(st.just("release"), st.integers(0, 5), st.none()),
    st.tuples(st.just("restock"), st.integers(0, 5), QUANTITIES),
    st.tuples(st.just("policy"), st.sampled_from(StockPolicy), st.none()),
    st.tuples(st.just("repeat"), LOCATIONS, st.integers(-20, 20)),
)


def inventory_says(stock: Stock, move: str, what: Any, number: Any) -> Stock:
    """What inventory or the tenant says of a product, checked by itself."""
    before, sequence = stock, stock.inventory_sequence + 1
    match move:
        case "count":
            stock = shelf.count(stock, what, number, sequence)
            level, delivered = stock.levels[what], stock.levels[what].sold - before.levels.get(what, Level()).sold
            assert level.on_hand + level.reserved + delivered == max(number, level.reserved)
        case "adjust":
            stock = shelf.adjust(stock, what, number, sequence)
            assert stock.on_hand + before.owed - stock.owed - before.on_hand in {number, stock.adjusted - before.adjusted}
        case "repeat":
            assert shelf.adjust(stock, what, number, stock.inventory_sequence) == stock
            assert shelf.count(stock, what, abs(number), stock.inventory_sequence) == stock
        case _:
            stock = shelf.set_policy(stock, what) if move == "policy" else stock
    return stock


def reserve(stock: Stock, number: int) -> tuple[Stock, list[Allocation]]:
    """Hold so many if that can be; what is held, checked by itself."""
    reserved = shelf.reserve(stock, number)
    assert (reserved is None) == (stock.policy is StockPolicy.TRACKED and number > stock.on_hand)
    stock, allocations = reserved or (stock, [])
    wanted = number if reserved and stock.policy is not StockPolicy.UNTRACKED else 0
    assert sum(allocation.quantity for allocation in allocations) == wanted
    assert all(allocation.quantity > 0 for allocation in allocations)
    return stock, allocations


@given(st.lists(MOVES, max_size=50))
@settings(max_examples=300, deadline=None)
def test_whatever_comes_goes_is_held_sold_owed_or_returned_the_books_balance(moves: list[tuple[str, Any, Any]]) -> None:
    stock, held, sold = EMPTY, list[Allocation](), list[Allocation]()
    for move, what, number in moves:
        match move:
            case "reserve":
                stock, allocations = reserve(stock, number)
                held += allocations
            case "sell" if held:
                sold.append(held.pop(what % len(held)))
                stock = shelf.sell(stock, sold[-1])
            case "release" if held:
                stock = shelf.release(stock, held.pop(what % len(held)))
            case "restock" if sold:
                back = sold.pop(what % len(sold))
                part = min(number, back.quantity)
                stock = shelf.restock(stock, back.location, part)
                sold += [replace(back, quantity=back.quantity - part)] if part < back.quantity else []
            case _:
                stock = inventory_says(stock, move, what, number)
        assert_kept(stock)
        assert stock.reserved + stock.promised == sum(allocation.quantity for allocation in held)
        assert stock.sold + stock.owed == sum(allocation.quantity for allocation in sold)


def test_a_reservation_takes_from_as_many_locations_as_it_needs_or_from_none() -> None:
    stock = EMPTY
    for sequence, (location, quantity) in enumerate([("b", 3), ("a", 2), ("c", 4)], 1):
        stock = shelf.adjust(stock, location, quantity, sequence)
    reserved = shelf.reserve(stock, 6)
    assert reserved is not None
    assert [(each.location, each.quantity) for each in reserved[1]] == [("a", 2), ("b", 3), ("c", 1)]
    assert shelf.reserve(reserved[0], 4) is None
    assert shelf.reserve(None, 1) is None


def test_a_count_below_what_is_reserved_leaves_nothing_free_and_breaks_no_promise() -> None:
    reserved = shelf.reserve(shelf.count(EMPTY, "a", 10, 1), 6)
    assert reserved is not None
    counted = shelf.count(reserved[0], "a", 4, 2)
    assert (counted.on_hand, counted.reserved, counted.adjusted) == (0, 6, 6)
    assert shelf.release(counted, reserved[1][0]).on_hand == 6


def test_more_taken_away_than_there_is_leaves_what_is_reserved() -> None:
    reserved = shelf.reserve(shelf.count(EMPTY, "a", 10, 1), 6)
    assert reserved is not None
    gone = shelf.adjust(reserved[0], "a", -100, 2)
    assert (gone.on_hand, gone.reserved) == (0, 6)
    assert_kept(gone)


def test_a_delta_waits_for_its_predecessor_and_a_count_does_not() -> None:
    stock = shelf.adjust(EMPTY, "a", 5, 1)
    with pytest.raises(SequenceGapError, match="gap"):
        shelf.adjust(stock, "a", 5, 3)
    counted = shelf.count(stock, "a", 7, 9)
    assert (counted.on_hand, counted.inventory_sequence) == (7, 9)
    for late in range(1, 10):
        assert shelf.adjust(counted, "a", 5, late) == counted
    assert shelf.adjust(counted, "a", 5, 10).on_hand == 12


def test_inventory_is_heard_once_its_tenant_is_known() -> None:
    memory = Memory(HANDLERS)
    counted = stock_counted("tea", 5, "a")
    adjusted = StockAdjusted(sku="tea", location="a", delta=-2, reason="broken")
    for fact in (counted, adjusted):
        with pytest.raises(NotYetError, match="unknown-tenant"):
            memory.execute(fact)
    memory.execute(tenant_updated(TENANT))
    memory.execute(counted, sequence=1)
    memory.execute(adjusted, sequence=2)
    memory.execute(adjusted, sequence=2)
    assert memory.get(Stock, "tea").on_hand == 3


def stocked(policy: StockPolicy, **levels: int) -> Stock:
    stock = EMPTY
    for location, quantity in levels.items():
        stock = shelf.adjust(stock, location, quantity, stock.inventory_sequence + 1)
    return shelf.set_policy(stock, policy)


def test_what_is_sold_beyond_the_shelf_is_owed_and_the_next_delivery_is_for_it() -> None:
    reserved = shelf.reserve(stocked(StockPolicy.BACKORDER, a=2), 5)
    assert reserved is not None
    stock, allocations = reserved
    assert [(each.location, each.quantity) for each in allocations] == [("a", 2), (None, 3)]
    for allocation in allocations:
        stock = shelf.sell(stock, allocation)
    assert (stock.on_hand, stock.sold, stock.owed, stock.adjusted) == (0, 2, 3, 2)
    stock = shelf.adjust(stock, "b", 2, 2)
    assert (stock.on_hand, stock.sold, stock.owed, stock.adjusted) == (0, 4, 1, 4)
    stock = shelf.count(stock, "b", 6, 3)
    assert (stock.on_hand, stock.sold, stock.owed, stock.adjusted) == (5, 5, 0, 10)
    assert_kept(stock)


def test_a_promise_that_is_released_is_no_debt_and_what_came_meanwhile_is_free() -> None:
    reserved = shelf.reserve(stocked(StockPolicy.BACKORDER), 3)
    assert reserved is not None
    [promise] = reserved[1]
    delivered = shelf.adjust(reserved[0], "a", 3, 1)
    assert (delivered.on_hand, delivered.backordered) == (3, 3), "not sold yet: anybody may still buy it"
    assert shelf.release(delivered, promise).backordered == 0
    sold = shelf.sell(delivered, promise)
    assert (sold.on_hand, sold.sold, sold.backordered) == (0, 3, 0)


def test_an_untracked_product_is_never_short_and_has_no_books() -> None:
    stock = stocked(StockPolicy.UNTRACKED)
    assert shelf.reserve(stock, 1_000_000) == (stock, [])


def test_a_returned_backorder_waives_the_debt_first_and_never_takes_what_another_order_returns() -> None:
    stock = stocked(StockPolicy.BACKORDER, a=1)
    for quantity in (1, 2):
        reserved = shelf.reserve(stock, quantity)
        assert reserved is not None
        stock = shelf.sell(*reserved[:1], *reserved[1])
    stock = shelf.adjust(stock, "b", 1, 2)  # one of the two owed has come, to b
    assert (stock.sold, stock.owed) == (2, 1)
    stock = shelf.restock(stock, None, 2)
    assert (stock.on_hand, stock.sold, stock.owed) == (1, 1, 0)
    stock = shelf.restock(stock, "a", 1)
    assert (stock.on_hand, stock.sold) == (2, 0)
    assert_kept(stock)
    with pytest.raises(ConflictError, match="restock-exceeds-sold"):
        shelf.restock(stock, "a", 1)


@given(
    st.lists(st.tuples(st.sampled_from(["tea", "mug"]), st.sampled_from([None, "a", "b"]), st.integers(1, 5)), max_size=6),
    st.data(),
)
@settings(max_examples=100, deadline=None)
def test_returned_step_by_step_the_same_goods_come_back_as_at_once(
    bought: list[tuple[str, str | None, int]], data: st.DataObject
) -> None:
    allocations = [Allocation(sku=sku, location=location, quantity=quantity) for sku, location, quantity in bought]
    whole = sum(each.quantity for each in allocations if each.sku == "tea")
    first = data.draw(st.integers(0, whole))
    steps = [
        *shelf.returning(allocations, "tea", first, 0),
        *shelf.returning(allocations, "tea", whole - first, first),
    ]

    def by_location(found: list[Allocation]) -> dict[str | None, int]:
        return {
            place: sum(each.quantity for each in found if each.location == place) for place in {each.location for each in found}
        }

    assert by_location(steps) == by_location([each for each in allocations if each.sku == "tea"])
    assert sum(each.quantity for each in shelf.returning(allocations, "tea", first, 0)) == first
