"""An order's own sums: what a line costs, how its money stands, and which goods go back on which shelf."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from libs.common.errors import ConflictError
from services.checkout.domain.order import Order, OrderState, PaymentState, Progress, cancel, restock, shelve, with_money
from services.checkout.domain.stock import Allocation
from services.checkout.handlers import HANDLERS
from tests.unit.checkout.sales import LINES, TOTAL_MINOR, line, sold
from tests.unit.memory import Memory

P = PaymentState


@pytest.fixture
def order() -> Order:
    return sold(Memory(HANDLERS), is_captured=False)


def _goods(allocations: Sequence[Allocation]) -> dict[str, int]:
    return {each.sku: each.quantity for each in allocations}


def test_a_line_costs_what_its_goods_cost_less_its_discount_and_with_the_tax_that_is_not_in_the_price(order: Order) -> None:
    assert [order.paid_minor(each) for each in LINES] == [750 - 100 + 65, 1_999 + 200]
    assert [replace(order, tax_included=True).paid_minor(each) for each in LINES] == [650, 1_999]
    untold = replace(line("3", "tea", 1, 10), discount_minor=None, tax_minor=None)
    assert (order.paid_minor(untold), replace(order, tax_included=True).paid_minor(untold)) == (10, 10)


@pytest.mark.parametrize(
    ("amounts", "before", "state"),
    [
        ({}, P.AUTHORIZED, P.AUTHORIZED),
        ({}, P.NONE, P.NONE),
        ({"captured_minor": 1}, P.AUTHORIZED, P.CAPTURED),
        ({"captured_minor": 10, "refunded_minor": 9}, P.CAPTURED, P.PARTIALLY_REFUNDED),
        ({"captured_minor": 10, "refunded_minor": 10}, P.CAPTURED, P.REFUNDED),
        ({"refunded_minor": TOTAL_MINOR}, P.AUTHORIZED, P.REFUNDED),
        ({"refunded_minor": TOTAL_MINOR - 1}, P.AUTHORIZED, P.PARTIALLY_REFUNDED),
        ({"captured_minor": 1, "refunded_minor": 1, "disputes": {"d": "open"}}, P.CAPTURED, P.DISPUTED),
        ({"captured_minor": 1, "disputes": {"d": "lost", "e": "won"}}, P.CAPTURED, P.DISPUTED),
        ({"captured_minor": 1, "disputes": {"d": "won"}}, P.DISPUTED, P.CAPTURED),
    ],
)
def test_how_its_money_stands_follows_from_its_amounts_and_disputes(
    order: Order, amounts: dict[str, Any], before: PaymentState, state: PaymentState
) -> None:
    assert with_money(replace(order, payment_state=before, **amounts)).payment_state is state


def test_what_is_off_cannot_be_called_off_again(order: Order) -> None:
    off, _, _ = cancel(order, "canceled")
    assert off.state is OrderState.CANCELED
    with pytest.raises(ConflictError, match="order-state"):
        cancel(off, "canceled")


def test_of_an_order_that_is_off_those_goods_go_back_that_are_in_the_house_and_each_once(order: Order) -> None:
    out = replace(order, progress={"1": Progress(shipped=2, shelved_by_returns=1, restocked=1)})
    off, event, goods = cancel(out, "canceled")
    assert _goods(goods) == {"tea": 1, "gin": 1}
    assert {line_id: off.progress_of(line_id).restocked for line_id in "12"} == {"1": 2, "2": 1}
    assert (event.total_minor, event.payment_id, off.payment_state) == (TOTAL_MINOR, order.payment_id, P.AUTHORIZED)
    assert cancel(replace(order, total_minor=0), "canceled")[0].payment_state is P.NONE


def test_nothing_goes_back_that_nobody_asked_for_nor_more_than_was_sold_nor_what_is_back_already(order: Order) -> None:
    assert restock(order, {}) == (order, [])
    back, goods = restock(order, {"1": 9})
    assert (_goods(goods), back.progress_of("1").restocked) == ({"tea": 3}, 3)
    assert restock(back, {"1": 3}) == (back, [])
    assert [restock(order, {"1": 2}, were_sent=sent)[0].progress_of("1").kept for sent in (False, True)] == [2, 0]
    told = replace(order, progress={"1": Progress(shipped=3, shelved_by_returns=1, shelved_by_refunds=2)})
    shelved, goods = shelve(told)
    assert (_goods(goods), shelve(shelved)) == ({"tea": 2}, (shelved, []))


def test_two_lines_of_one_product_give_back_to_each_shelf_what_was_taken_from_it(order: Order) -> None:
    lines = (line("1", "tea", 2, 1), line("2", "tea", 2, 1))
    places = (Allocation(sku="tea", location="east", quantity=3), Allocation(sku="tea", location="west", quantity=1))
    twice = replace(order, lines=lines, allocations=places)
    first, some = restock(twice, {"1": 2})
    _, rest = restock(first, {"1": 2, "2": 2})
    found: dict[str | None, int] = {}
    for each in (*some, *rest):
        found[each.location] = found.get(each.location, 0) + each.quantity
    assert found == {"east": 3, "west": 1}
