from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.identity import TenantUpdated
from libs.common.contracts.inventory import StockAdjusted, StockCounted
from libs.common.errors import NotYetError
from services.checkout.domain import stock as shelf
from services.checkout.domain.stock import Allocation, SequenceGapError, Stock
from services.checkout.handlers import HANDLERS
from tests.unit.memory import TENANT, Memory

EMPTY = Stock(tenant_id=TENANT, sku="tea")


def assert_kept(stock: Stock) -> None:
    """The books balance, in all and at each location, and nothing is below zero."""
    levels = stock.levels.values()
    assert stock.adjusted == stock.on_hand + stock.reserved + stock.sold
    assert stock.on_hand == sum(level.on_hand for level in levels)
    assert stock.reserved == sum(level.reserved for level in levels)
    assert stock.sold == sum(level.sold for level in levels)
    assert all(min(level.on_hand, level.reserved, level.sold) >= 0 for level in levels)


LOCATIONS = st.sampled_from(["a", "b", "c"])
MOVES = st.one_of(
    st.tuples(st.just("count"), LOCATIONS, st.integers(0, 20)),
    st.tuples(st.just("adjust"), LOCATIONS, st.integers(-20, 20)),
    st.tuples(st.just("reserve"), st.none(), st.integers(1, 20)),
    st.tuples(st.just("sell"), st.integers(0, 5), st.none()),
    st.tuples(st.just("release"), st.integers(0, 5), st.none()),
    st.tuples(st.just("repeat"), LOCATIONS, st.integers(-20, 20)),
)


@given(st.lists(MOVES, max_size=40))
@settings(max_examples=150, deadline=None)
def test_whatever_comes_goes_is_held_or_sold_the_books_balance(moves: list[tuple[str, Any, Any]]) -> None:
    stock, held = EMPTY, list[Allocation]()
    for move, what, number in moves:
        before, sequence = stock, stock.inventory_sequence + 1
        match move:
            case "count":
                stock = shelf.count(stock, what, number, sequence)
                assert stock.levels[what].on_hand + stock.levels[what].reserved == max(number, stock.levels[what].reserved)
            case "adjust":
                stock = shelf.adjust(stock, what, number, sequence)
                assert stock.on_hand - before.on_hand in {number, stock.adjusted - before.adjusted}
            case "repeat":
                assert shelf.adjust(stock, what, number, stock.inventory_sequence) == stock
                assert shelf.count(stock, what, abs(number), stock.inventory_sequence) == stock
            case "reserve":
                reserved = shelf.reserve(stock, number)
                assert (reserved is None) == (number > stock.on_hand)
                if reserved:
                    stock, allocations = reserved
                    assert sum(allocation.quantity for allocation in allocations) == number == before.on_hand - stock.on_hand
                    assert all(allocation.quantity > 0 for allocation in allocations)
                    held += allocations
            case "sell" if held:
                stock = shelf.sell(stock, held.pop(what % len(held)))
            case "release" if held:
                stock = shelf.release(stock, held.pop(what % len(held)))
            case _:
                assert not held
        assert_kept(stock)
        assert stock.reserved == sum(allocation.quantity for allocation in held)


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
    counted = StockCounted(sku="tea", location="a", quantity=5)
    adjusted = StockAdjusted(sku="tea", location="a", delta=-2, reason="broken")
    for fact in (counted, adjusted):
        with pytest.raises(NotYetError, match="unknown-tenant"):
            memory.execute(fact)
    memory.execute(TenantUpdated(tenant_id=TENANT, version=1, slug="t", status="active", currency="GBP", country="GB"))
    memory.execute(counted, sequence=1)
    memory.execute(adjusted, sequence=2)
    memory.execute(adjusted, sequence=2)
    assert memory.get(Stock, "tea").on_hand == 3
