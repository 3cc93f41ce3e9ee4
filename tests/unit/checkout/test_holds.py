"""Stock at its edges: how much may be held unpaid, what expires when, from which shelf it comes and to which it returns."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from libs.common.errors import ConflictError, UnbelievableError
from services.checkout.domain import stock as shelf
from services.checkout.domain.stock import Allocation, Bounds, Level, SequenceGapError, Stock, StockPolicy
from tests.unit.memory import NOW, TENANT

BACKORDER, UNTRACKED = StockPolicy.BACKORDER, StockPolicy.UNTRACKED


def stock(policy: StockPolicy = StockPolicy.TRACKED, **on_hand: int) -> Stock:
    levels = {location: Level(on_hand=count) for location, count in on_hand.items()}
    total = sum(on_hand.values())
    return Stock(tenant_id=TENANT, sku="tea", on_hand=total, adjusted=total, levels=levels, policy=policy, inventory_sequence=1)


def from_(location: str | None, quantity: int) -> Allocation:
    return Allocation(sku="tea", location=location, quantity=quantity)


def held(before: Stock, holder: str, quantity: int, buyers: tuple[str, ...] = (), *, minutes: int = 1) -> Stock:
    reserved = shelf.reserve(before, quantity)
    assert reserved is not None
    return shelf.hold(reserved[0], holder, reserved[1], NOW + timedelta(minutes=minutes), buyers)


def test_goods_are_held_from_the_locations_in_order_and_what_is_missing_is_promised_or_refused() -> None:
    assert shelf.reserve(None, 1) is None
    assert shelf.reserve(stock(a=2, b=3), 6) is None
    for quantity, expected in ((2, [from_("a", 2)]), (3, [from_("a", 2), from_("b", 1)]), (5, [from_("a", 2), from_("b", 3)])):
        reserved = shelf.reserve(stock(b=3, a=2), quantity)
        assert reserved is not None
        assert (reserved[1], reserved[0].on_hand, reserved[0].reserved) == (expected, 5 - quantity, quantity)
    promised = shelf.reserve(stock(BACKORDER, a=2), 5)
    assert promised is not None
    assert (promised[1], promised[0].promised, promised[0].backordered) == ([from_("a", 2), from_(None, 3)], 3, 3)
    assert shelf.reserve(stock(UNTRACKED), 9) == (stock(UNTRACKED), [])


@pytest.mark.parametrize(
    ("before", "quantity", "bounds", "may"),
    [
        (stock(a=10), 5, Bounds(), True),
        (stock(a=10), 6, Bounds(), False),
        (stock(a=9), 5, Bounds(), False),
        (held(stock(a=10), "x", 2), 3, Bounds(), True),
        (held(stock(a=10), "x", 2), 4, Bounds(), False),
        (stock(BACKORDER, a=2), 5, Bounds(), False),
        (stock(BACKORDER, a=2), 5, Bounds(share_percent=100), True),
        (held(stock(BACKORDER, a=2), "x", 5), 9, Bounds(share_percent=100), True),
        (stock(UNTRACKED), 99, Bounds(share_percent=0, per_buyer=0), True),
    ],
)
def test_no_more_is_held_unpaid_than_its_share_of_what_is_on_the_shelf(
    before: Stock, quantity: int, bounds: Bounds, may: Any
) -> None:
    assert shelf.may_hold(before, quantity, (), bounds) is may


def test_a_buyer_is_known_by_each_thing_that_is_theirs_and_holds_as_often_as_they_may() -> None:
    once = held(stock(a=100), "x", 1, ("me", "my house"))
    twice = held(once, "y", 1, ("somebody", "my house"))
    for before, who, may in ((once, "me", True), (twice, "my house", False), (twice, "me", True), (twice, "stranger", True)):
        assert shelf.may_hold(before, 1, (who,), Bounds(per_buyer=2)) is may


def test_a_hold_is_swept_when_its_time_has_come_and_is_its_buyers_until_then() -> None:
    both = held(held(stock(a=5), "x", 2, minutes=1), "y", 1, minutes=2)
    assert shelf.sweep(both, NOW + timedelta(seconds=59)) == both
    swept = shelf.sweep(both, NOW + timedelta(minutes=1))
    assert (set(swept.holds), swept.on_hand, swept.reserved) == ({"y"}, 4, 1)
    kept = shelf.keep(swept, "y")
    assert kept is not None
    assert (kept.holds, kept.reserved, shelf.keep(swept, "x")) == ({}, 1, None)
    assert shelf.give_up(swept, "x") == swept
    assert shelf.give_up(both, "y") == replace(shelf.keep(both, "y") or both, **_free(both, 1))


def _free(before: Stock, quantity: int) -> dict[str, Any]:
    level = before.levels["a"]
    moved = replace(level, on_hand=level.on_hand + quantity, reserved=level.reserved - quantity)
    return {"on_hand": before.on_hand + quantity, "reserved": before.reserved - quantity, "levels": {"a": moved}}


def test_what_is_owed_is_the_first_to_be_given_what_comes_and_the_first_to_be_waived() -> None:
    promised = shelf.reserve(stock(BACKORDER), 5)
    assert promised is not None
    owed = shelf.sell(promised[0], promised[1][0])
    assert (owed.promised, owed.owed, owed.backordered) == (0, 5, 5)
    assert replace(owed, promised=2).backordered == 7
    came = shelf.count(owed, "a", 3, 2)
    assert (came.on_hand, came.sold, came.owed) == (0, 3, 2)
    waived = shelf.restock(came, None, 3)
    assert (waived.owed, waived.sold, waived.on_hand) == (0, 2, 1)
    with pytest.raises(ConflictError, match="restock-exceeds-sold"):
        shelf.restock(waived, None, 3)


def test_goods_go_back_to_where_they_came_from_and_elsewhere_only_for_what_was_not_sold_there() -> None:
    sold = shelf.sell(shelf.sell((shelf.reserve(stock(a=2, b=2), 4) or (stock(), []))[0], from_("a", 2)), from_("b", 2))
    back = shelf.restock(sold, "b", 3)
    assert {place: (level.on_hand, level.sold) for place, level in back.levels.items()} == {"a": (1, 1), "b": (2, 0)}
    assert shelf.returning((from_("b", 2), from_("a", 1), from_(None, 1)), "tea", 2, 1) == [from_("a", 1), from_("b", 1)]
    assert shelf.returning((from_("a", 2),), "gin", 1, 0) == []


def test_inventory_is_believed_in_its_order_and_counts_what_is_free_beside_what_is_held() -> None:
    reserved = (shelf.reserve(stock(a=5), 3) or (stock(), []))[0]
    counted = shelf.count(reserved, "a", 4, 2)
    assert (counted.on_hand, counted.reserved, counted.adjusted, counted.inventory_sequence) == (1, 3, 4, 2)
    assert shelf.count(counted, "a", 9, 2) == counted
    assert (shelf.count(counted, "a", 2, 9).on_hand, shelf.count(counted, "a", 2, 9).inventory_sequence) == (0, 9)
    assert shelf.adjust(counted, "a", 2, 3).on_hand == 3
    assert shelf.adjust(counted, "a", -9, 3).on_hand == 0, "never below what is free"
    assert shelf.adjust(counted, "a", 2, 2) == counted
    with pytest.raises(SequenceGapError):
        shelf.adjust(counted, "a", 2, 4)
    for far in (shelf.adjust, shelf.count):
        with pytest.raises(UnbelievableError):
            far(counted, "a", 2, 10**15)
    assert [shelf.skip(counted, number).inventory_sequence for number in (1, 2, 7)] == [2, 2, 7]
