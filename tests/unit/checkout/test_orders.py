"""Orders after their confirmation: called off, contested, sent, taken back, written about and looked up."""

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.contracts.checkout import (
    OrderCanceled,
    OrderFulfilled,
)
from libs.common.contracts.fulfilment import ReturnReceived, ShipmentDelivered, ShipmentDispatched
from libs.common.contracts.payments import (
    DisputeClosed,
    DisputeOpened,
    RefundSucceeded,
)
from libs.common.errors import CartwrightError, ConflictError, NotFoundError, RejectedError
from services.checkout.domain.order import FulfilmentState, Order, OrderState, PaymentState
from services.checkout.domain.stock import Stock
from services.checkout.handlers import HANDLERS
from services.checkout.handlers.orders import CancelOrder, SendLink, WriteNote
from tests.unit.checkout.sales import STAFF, TOTAL_MINOR, F, ask, lines, sold, told
from tests.unit.checkout.shop import after, authorized, paying, shop, voided
from tests.unit.memory import TENANT, Memory

# Calling it off, disputes, notes and lookups.


def test_a_canceled_order_puts_its_goods_back_tells_payments_and_is_canceled_once() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory, is_captured=False)
    canceled = memory.execute(CancelOrder(order_id=order.id, caller=STAFF))
    assert (canceled.state, canceled.reason) == (OrderState.CANCELED, "canceled")
    assert [event.payment_id for event in memory.events(OrderCanceled)] == [order.payment_id]
    assert [(memory.get(Stock, sku).on_hand, memory.get(Stock, sku).sold) for sku in ("tea", "gin")] == [(10, 0), (4, 0)]
    with pytest.raises(ConflictError, match="order-canceled"):
        memory.execute(CancelOrder(order_id=order.id, caller=STAFF))
    with pytest.raises(ConflictError, match="order-canceled"):
        memory.execute(ShipmentDispatched(order_id=order.id, shipment_id="late", lines=lines(_1=1)))


def test_a_dispute_shows_until_it_is_won_and_for_ever_once_it_is_lost() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    facts: dict[str, Any] = {
        "payment_id": order.payment_id,
        "checkout_id": order.checkout_id,
        "order_id": order.id,
        "amount_minor": TOTAL_MINOR,
        "currency": "GBP",
    }
    states = []
    for outcome in ("won", "lost"):
        opened = DisputeOpened(dispute_id=uuid4(), reason="fraudulent", **facts)
        closed = DisputeClosed(dispute_id=opened.dispute_id, outcome=outcome, **facts)
        for event in (opened, opened, closed, opened):
            memory.execute(event)
            states.append(memory.get(Order, order.id).payment_state)
    disputed, taken = PaymentState.DISPUTED, PaymentState.CAPTURED
    assert states == [disputed, disputed, taken, taken, disputed, disputed, disputed, disputed]


def test_notes_are_staffs_and_of_orders_that_there_are() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    note = memory.execute(WriteNote(order_id=order.id, caller=STAFF, body="called twice"))
    assert (note.order_id, note.author, memory.get(Order, order.id)) == (order.id, str(STAFF.subject_id), order)
    with pytest.raises(NotFoundError):
        memory.execute(WriteNote(order_id=uuid4(), caller=STAFF, body="x"))


def test_a_link_is_asked_for_where_there_is_an_order_and_nothing_is_said_where_there_is_none() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    assert memory.execute(SendLink(order_id=uuid4(), lookup_id=uuid4())) == "nothing"
    told_before = len(memory.outbox)
    assert memory.execute(SendLink(order_id=order.id, lookup_id=UUID(int=5))) == "told"
    [published] = memory.outbox[told_before:]
    assert (published.event.TYPE, published.aggregate_id) == ("order.lookup-requested", str(UUID(int=5)))
    assert memory.get(Order, order.id) == order


# Fulfilment.


def test_an_order_goes_out_in_parts_arrives_and_comes_back() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    steps: list[tuple[Any, FulfilmentState]] = [
        (ShipmentDispatched(order_id=order.id, shipment_id="a", lines=lines(_1=2)), F.PARTIALLY_FULFILLED),
        (ShipmentDispatched(order_id=order.id, shipment_id="a", lines=lines(_1=2)), F.PARTIALLY_FULFILLED),
        (ShipmentDelivered(order_id=order.id, shipment_id="a"), F.PARTIALLY_FULFILLED),
        (ShipmentDispatched(order_id=order.id, shipment_id="b", lines=lines(_1=1, _2=1)), F.FULFILLED),
        (ReturnReceived(order_id=order.id, return_id="r", lines=lines(_1=3), restock=True), F.FULFILLED),
        (ReturnReceived(order_id=order.id, return_id="r", lines=lines(_1=3), restock=True), F.FULFILLED),
        (ShipmentDelivered(order_id=order.id, shipment_id="b"), F.DELIVERED),
        (ReturnReceived(order_id=order.id, return_id="s", lines=lines(_2=1), restock=False), F.RETURNED),
    ]
    for event, state in steps:
        memory.execute(event)
        assert memory.get(Order, order.id).fulfilment_state is state
    assert [event.shipment_id for event in memory.events(OrderFulfilled)] == ["a", "b"]
    assert [(memory.get(Stock, sku).on_hand, memory.get(Stock, sku).sold) for sku in ("tea", "gin")] == [(10, 0), (3, 1)]


def test_shipments_that_arrive_before_we_hear_that_they_left_count_as_ever_and_no_more_of_them_than_goods() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    goods = {"a": lines(_1=1), "b": lines(_1=1), "c": lines(_1=1), "d": lines(_2=1)}
    for shipment_id in goods:
        memory.execute(ShipmentDelivered(order_id=order.id, shipment_id=shipment_id))
        assert memory.get(Order, order.id).fulfilment_state is F.UNFULFILLED
    with pytest.raises(NotFoundError, match="shipment-not-found"):
        memory.execute(ShipmentDelivered(order_id=order.id, shipment_id="e"))
    for shipment_id, parts in goods.items():
        for _ in range(2):
            memory.execute(ShipmentDispatched(order_id=order.id, shipment_id=shipment_id, lines=parts))
    assert memory.get(Order, order.id).fulfilment_state is F.DELIVERED
    assert [event.shipment_id for event in memory.events(OrderFulfilled)] == [*goods]


def test_goods_that_came_back_are_not_put_on_the_shelf_again_by_their_refund() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    memory.execute(ShipmentDispatched(order_id=order.id, shipment_id="a", lines=lines(_1=3, _2=1)))
    memory.execute(ReturnReceived(order_id=order.id, return_id="r", lines=lines(_1=2), restock=True))
    for count, on_hand in ((2, 9), (1, 10)):
        refund = ask(memory, order, quantities={"1": count}, restock=True)
        memory.execute(told(refund, order, RefundSucceeded))
        assert memory.get(Stock, "tea").on_hand == on_hand


def test_goods_of_an_order_that_is_off_go_on_the_shelf_when_they_come_back_beside_those_that_never_left() -> None:
    memory = shop(tea=10)
    checkout = paying(memory, ("tea", 3))
    after(memory, checkout, authorized(checkout))
    memory.execute(ShipmentDispatched(order_id=checkout.order_id, shipment_id="a", lines=lines(_1=2)))
    after(memory, checkout, voided(checkout))
    assert memory.get(Order, checkout.order_id).state is OrderState.CANCELED
    shelves = [(memory.get(Stock, "tea").on_hand, memory.get(Stock, "tea").sold)]
    for return_id in "rs":
        memory.execute(ReturnReceived(order_id=checkout.order_id, return_id=return_id, lines=lines(_1=1), restock=True))
        shelves.append((memory.get(Stock, "tea").on_hand, memory.get(Stock, "tea").sold))
    assert shelves == [(8, 2), (9, 1), (10, 0)]


def test_goods_that_cost_nothing_go_on_the_shelf_when_they_come_back_for_there_is_no_refund_of_nothing() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    paid, gift = order.lines
    free = replace(gift, unit_minor=0, total_minor=0, tax_minor=0)
    memory.rows[Order, TENANT, order.id] = replace(order, lines=(paid, free))
    with pytest.raises(ConflictError, match="refund-exceeds-capture"):
        ask(memory, order, quantities={"2": 1}, restock=True)
    memory.execute(ShipmentDispatched(order_id=order.id, shipment_id="a", lines=lines(_1=3, _2=1)))
    memory.execute(ReturnReceived(order_id=order.id, return_id="r", lines=lines(_2=1), restock=True))
    assert (memory.get(Stock, "gin").on_hand, memory.get(Stock, "gin").sold) == (4, 0)


def test_what_fulfilment_says_is_believed_only_as_far_as_the_order_bears_it_out() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    lies: list[tuple[Any, type[CartwrightError]]] = [
        (ShipmentDispatched(order_id=uuid4(), shipment_id="a", lines=lines(_1=1)), NotFoundError),
        (ShipmentDispatched(order_id=order.id, shipment_id="a", lines=lines(_1=4)), RejectedError),
        (ShipmentDispatched(order_id=order.id, shipment_id="a", lines=(*lines(_1=2), *lines(_1=2))), RejectedError),
        (ShipmentDispatched(order_id=order.id, shipment_id="a", lines=lines(_9=1)), RejectedError),
        (ReturnReceived(order_id=order.id, return_id="r", lines=lines(_1=1), restock=True), RejectedError),
    ]
    for event, refusal in lies:
        with pytest.raises(refusal):
            memory.execute(event)
    assert memory.get(Order, order.id) == order
