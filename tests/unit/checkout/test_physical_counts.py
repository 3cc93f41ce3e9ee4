"""A count of all that lies on the shelf, also of what is sold and has not left yet, whoever is heard of first."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.fulfilment import FulfilmentLine, ReturnReceived, ShipmentDispatched
from libs.common.contracts.inventory import StockCounted
from libs.common.contracts.payments import RefundSucceeded
from services.checkout.domain.order import Order
from services.checkout.domain.refund import Refund
from services.checkout.domain.saga import Checkout
from services.checkout.domain.stock import Stock, StockPolicy
from services.checkout.handlers.orders import CancelOrder
from services.checkout.handlers.stock import PutStockPolicy
from tests.shared.events import payment_captured
from tests.unit.checkout.books import assert_kept
from tests.unit.checkout.sales import STAFF, ask, told
from tests.unit.checkout.shop import authorized, frozen, shop, start
from tests.unit.memory import NOW, Memory

SECOND = timedelta(seconds=1)


def order(memory: Memory, quantity: int) -> Order:
    checkout = start(memory, cart_id=uuid4())
    memory.execute(frozen(checkout, [("tea", quantity)]))
    memory.execute(authorized(memory.get(Checkout, checkout.id)))
    return memory.get(Order, checkout.order_id)


def counted(quantity: int, basis: Any = "physical", location: str = "main") -> StockCounted:
    return StockCounted(sku="tea", location=location, quantity=quantity, basis=basis)


def sent(bought: Order, quantity: int) -> ShipmentDispatched:
    lines = (FulfilmentLine(line_id="1", quantity=quantity),)
    return ShipmentDispatched(order_id=bought.id, shipment_id=str(uuid4()), lines=lines)


def tea(memory: Memory) -> Stock:
    stock = memory.get(Stock, "tea")
    assert_kept(stock)
    return stock


@pytest.mark.parametrize(("basis", "free"), [("physical", 5), ("free", 8), (None, 8)])
def test_a_physical_count_has_in_it_what_is_sold_and_not_sent_and_any_other_has_not(basis: Any, free: int) -> None:
    memory = shop(tea=10)
    bought = order(memory, 5)
    memory.execute(sent(bought, 2), now=NOW + SECOND)
    memory.execute(counted(8, basis), sequence=2, now=NOW + 2 * SECOND)
    assert tea(memory).on_hand == free
    memory.execute(sent(bought, 3), now=NOW + 3 * SECOND)
    assert tea(memory).on_hand == free, "what leaves was not free before"


def test_goods_that_came_for_a_backorder_and_wait_to_be_sent_are_in_the_count_too() -> None:
    memory = shop(tea=1)
    memory.execute(PutStockPolicy(sku="tea", policy=StockPolicy.BACKORDER))
    bought = order(memory, 3)
    memory.execute(counted(6), sequence=2, now=NOW + SECOND)
    assert (tea(memory).on_hand, tea(memory).owed) == (3, 0)
    memory.execute(counted(6), sequence=3, now=NOW + 2 * SECOND)
    assert tea(memory).on_hand == 3
    memory.execute(sent(bought, 3), now=NOW + 3 * SECOND)
    memory.execute(counted(3), sequence=4, now=NOW + 4 * SECOND)
    assert tea(memory).on_hand == 3


def test_what_is_given_up_unsent_is_free_and_what_comes_back_is_so_once() -> None:
    memory = shop(tea=10)
    off, part, back = order(memory, 1), order(memory, 2), order(memory, 3)
    memory.execute(CancelOrder(order_id=off.id, caller=STAFF))
    memory.execute(payment_captured(memory.get(Checkout, part.checkout_id)))
    refund = ask(memory, part, quantities={"1": 1}, restock=True)
    memory.execute(told(memory.get(Refund, refund.id), part, RefundSucceeded))
    memory.execute(sent(back, 3), now=NOW + SECOND)
    lines = (FulfilmentLine(line_id="1", quantity=2),)
    memory.execute(ReturnReceived(order_id=back.id, return_id="r", lines=lines, restock=True), now=NOW + 2 * SECOND)
    assert tea(memory).on_hand == 10 - 1 - 1
    memory.execute(counted(9), sequence=2, now=NOW + 3 * SECOND)
    assert tea(memory).on_hand == 9 - 1, "one of the second order still lies there"


def test_where_a_count_found_too_few_what_is_given_up_is_for_those_they_are_missing_for_first() -> None:
    memory = shop(tea=10)
    bought = [order(memory, 3) for _ in range(3)]
    memory.execute(counted(4), sequence=2, now=NOW + SECOND)  # of nine that are sold
    free = [tea(memory).on_hand]
    for each in bought[:2]:
        memory.execute(CancelOrder(order_id=each.id, caller=STAFF))
        free.append(tea(memory).on_hand)
    assert free == [0, 0, 1]


def test_what_leaves_leaves_the_place_that_it_was_sold_from() -> None:
    memory = shop(tea=2)
    first = order(memory, 2)
    memory.execute(counted(2, location="annex"), sequence=2, now=NOW + SECOND)
    order(memory, 2)
    memory.execute(sent(first, 2), now=NOW + 2 * SECOND)
    assert {place: level.unsent for place, level in tea(memory).levels.items()} == {"main": 0, "annex": 2}


@pytest.mark.parametrize("is_count_first", [True, False])
def test_what_left_at_the_very_moment_of_a_count_is_taken_to_have_been_in_it(is_count_first: bool) -> None:
    memory = shop(tea=10)
    memory.execute(counted(10), sequence=2, now=NOW)
    bought, at = order(memory, 3), NOW + SECOND
    facts: list[tuple[Any, int]] = [(counted(10), 3), (sent(bought, 3), 1)]
    for fact, sequence in facts if is_count_first else reversed(facts):
        memory.execute(fact, sequence=sequence, now=at)
    assert tea(memory).on_hand == 7, "too few are free until the next count, and none is sold twice"


@dataclass
class House:
    """What really lies there, what is told of it, and what of that has been heard: each topic in its own time."""

    memory: Memory = field(default_factory=lambda: shop(tea=30))
    shelf: int = 30
    seconds: int = 0
    counts: int = 1
    open: list[Order] = field(default_factory=list)
    left: dict[UUID, int] = field(default_factory=dict)
    inventory: list[tuple[Any, int, int]] = field(default_factory=list)
    fulfilment: list[tuple[Any, int, int]] = field(default_factory=list)

    def take(self, step: str, number: int) -> None:
        self.seconds += 1
        match step:
            case "buy" if number <= tea(self.memory).on_hand:
                bought = order(self.memory, number)
                self.open.append(bought)
                self.left[bought.id] = number
            case "send" if self.open:
                self._send(self.open[number % len(self.open)], number)
            case "cancel" if self.open:
                self._cancel(self.open[number % len(self.open)])
            case "steal":
                self.shelf = max(self.shelf - 6 * number, 0)
            case "arrive":
                self.shelf += number
            case "count":
                self.count()
            case "hear" | "listen":
                self.hear(self.inventory if step == "hear" else self.fulfilment)
            case _:
                assert step in {"buy", "send", "cancel"}, "there is none to be had"

    def _send(self, bought: Order, number: int) -> None:
        quantity = min(number, self.left[bought.id], self.shelf)
        if quantity:
            self.shelf -= quantity
            self.left[bought.id] -= quantity
            self.fulfilment.append((sent(bought, quantity), 1, self.seconds))

    def _cancel(self, bought: Order) -> None:
        """Only what fulfilment has not touched: else it would be packed and unpacked at once."""
        if self.left[bought.id] == sum(line.quantity for line in bought.lines):
            self.memory.execute(CancelOrder(order_id=bought.id, caller=STAFF))
            self.open.remove(bought)
            del self.left[bought.id]

    def count(self) -> None:
        self.counts += 1
        self.inventory.append((counted(self.shelf), self.counts, self.seconds))

    def hear(self, topic: list[tuple[Any, int, int]]) -> None:
        if topic:
            event, sequence, at = topic.pop(0)
            self.memory.execute(event, sequence=sequence, now=NOW + at * SECOND)


STEPS = st.tuples(
    st.sampled_from(["buy", "buy", "send", "send", "cancel", "steal", "arrive", "count", "hear", "listen"]), st.integers(1, 6)
)


@given(st.lists(STEPS, max_size=40), st.lists(STEPS.filter(lambda step: step[0] in {"buy", "send", "cancel"}), max_size=12))
@settings(max_examples=400, deadline=None)
def test_once_all_is_heard_in_whatever_order_what_the_last_count_found_is_free_but_for_what_waits_to_be_sent(
    steps: list[tuple[str, int]], since: list[tuple[str, int]]
) -> None:
    house = House()
    house.count()
    house.hear(house.inventory)  # what is sent is remembered from the first such count on
    for step, number in steps:
        house.take(step, number)
    house.take("count", 0)
    for step, number in since:
        house.take(step, number)
    while house.inventory or house.fulfilment:
        house.hear(house.fulfilment if len(house.fulfilment) % 2 else house.inventory)
        house.hear(house.fulfilment)
    assert tea(house.memory).on_hand == max(house.shelf - sum(house.left.values()), 0)
    assert sum(level.unsent for level in tea(house.memory).levels.values()) == sum(house.left.values())
