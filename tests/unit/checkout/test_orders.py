"""Orders after their confirmation: money that goes back, goods that leave and return, and what nobody may do."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.checkout import (
    OrderCanceled,
    OrderFulfilled,
    OrderLine,
    OrderRefunded,
    OrderRefundFailed,
    RefundRequested,
)
from libs.common.contracts.fulfilment import FulfilmentLine, ReturnReceived, ShipmentDelivered, ShipmentDispatched
from libs.common.contracts.payments import (
    DisputeClosed,
    DisputeOpened,
    PaymentCaptured,
    PaymentExpired,
    PaymentVoided,
    RefundFailed,
    RefundPending,
    RefundSucceeded,
)
from libs.common.errors import CartwrightError, ConflictError, NotFoundError, RejectedError
from services.checkout.domain import refund as till
from services.checkout.domain.order import FulfilmentState, Order, OrderState, PaymentState
from services.checkout.domain.refund import Refund, RefundState, RefundWish
from services.checkout.domain.saga import Checkout, CheckoutState
from services.checkout.domain.stock import Allocation, Level, Stock
from services.checkout.handlers import HANDLERS, Caller
from services.checkout.handlers.orders import CancelOrder, SendLink, WriteNote
from services.checkout.handlers.refunds import RequestRefund
from tests.shared.events import stock_counted, tenant_updated
from tests.unit.memory import NOW, TENANT, Memory

STAFF = Caller(subject_id=UUID(int=9), sees_all=True)
F = FulfilmentState


def line(line_id: str, sku: str, quantity: int, unit_minor: int, discount_minor: int = 0, tax_minor: int = 0) -> OrderLine:
    return OrderLine(
        line_id=line_id,
        sku=sku,
        name=sku,
        quantity=quantity,
        unit_minor=unit_minor,
        total_minor=unit_minor * quantity,
        discount_minor=discount_minor,
        tax_minor=tax_minor,
    )


LINES = (line("1", "tea", 3, 250, discount_minor=100, tax_minor=65), line("2", "gin", 1, 1_999, tax_minor=200))
SHIPPING_MINOR = 400
TOTAL_MINOR = 750 - 100 + 65 + 1_999 + 200 + SHIPPING_MINOR


def sold(memory: Memory, *, is_captured: bool = True) -> Order:
    """An order of two lines, its goods sold from two locations."""
    memory.execute(tenant_updated(TENANT))
    for sku, count in (("tea", 10), ("gin", 4)):
        memory.execute(stock_counted(sku, count), sequence=1)
        stock = memory.get(Stock, sku)
        level = Level(on_hand=count - (3 if sku == "tea" else 1), sold=3 if sku == "tea" else 1)
        memory.rows[Stock, TENANT, sku] = replace(stock, on_hand=level.on_hand, sold=level.sold, levels={"main": level})
    order = Order(
        tenant_id=TENANT,
        id=uuid4(),
        version=1,
        sequence=1,
        number=1,
        state=OrderState.CONFIRMED,
        payment_state=PaymentState.AUTHORIZED,
        subject_id=UUID(int=1),
        checkout_id=uuid4(),
        cart_id=uuid4(),
        payment_id=uuid4(),
        currency="GBP",
        lines=LINES,
        subtotal_minor=2_749,
        discount_minor=100,
        shipping_minor=SHIPPING_MINOR,
        tax_minor=265,
        total_minor=TOTAL_MINOR,
        allocations=(Allocation(sku="tea", location="main", quantity=3), Allocation(sku="gin", location="main", quantity=1)),
        placed_at=NOW,
    )
    memory.rows[Order, TENANT, order.id] = order
    if is_captured:
        memory.execute(captured(order))
    return memory.get(Order, order.id)


def captured(order: Order) -> PaymentCaptured:
    return PaymentCaptured(
        payment_id=order.payment_id,
        checkout_id=order.checkout_id,
        order_id=order.id,
        amount_minor=order.total_minor,
        captured_minor=order.total_minor,
    )


def ask(
    memory: Memory,
    order: Order,
    amount_minor: int | None = None,
    quantities: dict[str, int] | None = None,
    *,
    restock: bool = False,
    caller: Caller = STAFF,
) -> Refund:
    wish = RefundWish(amount_minor=amount_minor, quantities=quantities or {}, restock=restock, reason="broken")
    refund: Refund = memory.execute(RequestRefund(refund_id=uuid4(), order_id=order.id, caller=caller, wish=wish))
    return refund


def told(refund: Refund, order: Order, kind: type[Any], refunded_minor: int = 0) -> Any:
    facts: dict[str, Any] = {
        "refund_id": refund.id,
        "payment_id": order.payment_id,
        "checkout_id": order.checkout_id,
        "order_id": order.id,
        "amount_minor": refund.amount_minor,
        "currency": "GBP",
    }
    if kind is not RefundPending:
        facts["refunded_minor"] = refunded_minor
    return kind(**facts, code="expired_card") if kind is RefundFailed else kind(**facts)


def lines(**quantities: int) -> tuple[FulfilmentLine, ...]:
    return tuple(FulfilmentLine(line_id=name.strip("_"), quantity=count) for name, count in quantities.items())


# Refunds.


def test_a_refund_with_neither_amount_nor_lines_gives_back_all_that_is_left_and_puts_its_goods_on_the_shelf_once_it_is() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    refund = ask(memory, order, restock=True)
    assert (refund.amount_minor, refund.state) == (TOTAL_MINOR, RefundState.REQUESTED)
    assert [event.amount_minor for event in memory.events(RefundRequested)] == [TOTAL_MINOR]
    assert memory.get(Stock, "tea").sold == 3
    for kind in (RefundPending, RefundSucceeded, RefundSucceeded, RefundPending):
        memory.execute(told(refund, order, kind))
    order = memory.get(Order, order.id)
    assert (order.payment_state, order.refunded_minor, order.refunding_minor) == (PaymentState.REFUNDED, TOTAL_MINOR, 0)
    assert [(event.amount_minor, event.refunded_minor) for event in memory.events(OrderRefunded)] == [(TOTAL_MINOR, TOTAL_MINOR)]
    stock = memory.get(Stock, "tea")
    assert (stock.on_hand, stock.sold) == (10, 0)
    with pytest.raises(ConflictError, match="refund-exceeds-capture"):
        ask(memory, order)


def test_refunding_lines_one_by_one_gives_back_what_they_cost_to_the_last_minor_unit_and_never_shipping() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    amounts = [ask(memory, order, quantities={"1": 1}).amount_minor for _ in range(3)]
    assert (sum(amounts), max(amounts) - min(amounts)) == (750 - 100 + 65, 1)
    assert ask(memory, order, quantities={"2": 1}).amount_minor == 2_199
    with pytest.raises(ConflictError, match="line-refunded"):
        ask(memory, order, quantities={"1": 1})
    assert ask(memory, order).amount_minor == SHIPPING_MINOR


@pytest.mark.parametrize(
    ("amount", "quantities", "restock", "refusal"),
    [
        (TOTAL_MINOR + 1, {}, False, "refund-exceeds-capture"),
        (None, {"3": 1}, False, "unknown-line"),
        (None, {"1": 4}, False, "line-refunded"),
        (5, {}, True, "restock-needs-lines"),
    ],
)
def test_what_cannot_be_refunded_is_refused_and_asks_nothing_of_payments(
    amount: int | None, quantities: dict[str, int], restock: bool, refusal: str
) -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    with pytest.raises(CartwrightError, match=refusal):
        ask(memory, order, amount, quantities, restock=restock)
    assert (memory.get(Order, order.id), memory.events(RefundRequested)) == (order, [])


def test_money_that_was_not_taken_is_not_refunded_and_money_that_was_is_not_canceled() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory, is_captured=False)
    with pytest.raises(ConflictError, match="order-not-captured"):
        ask(memory, order, 1)
    memory.execute(captured(order))
    with pytest.raises(ConflictError, match="order-captured"):
        memory.execute(CancelOrder(order_id=order.id, caller=STAFF))


def test_a_refund_that_comes_back_after_it_had_succeeded_may_be_made_again() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    refund = ask(memory, order, quantities={"1": 2}, restock=True)
    memory.execute(told(refund, order, RefundSucceeded))
    assert memory.get(Order, order.id).payment_state is PaymentState.PARTIALLY_REFUNDED
    memory.execute(told(refund, order, RefundFailed))
    order = memory.get(Order, order.id)
    assert (order.payment_state, order.refunded_minor, order.refunding_minor) == (PaymentState.CAPTURED, 0, 0)
    assert memory.get(Refund, refund.id).code == "expired_card"
    again = ask(memory, order, quantities={"1": 2}, restock=True)
    memory.execute(told(again, order, RefundSucceeded))
    assert memory.get(Stock, "tea").on_hand == 9, "the goods came back once"
    assert memory.get(Order, order.id).refunded_minor == again.amount_minor == refund.amount_minor


def test_a_refund_that_payments_made_by_itself_is_counted_too_even_before_the_capture_is_heard_of() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory, is_captured=False)
    memory.execute(CancelOrder(order_id=order.id, caller=STAFF))
    theirs = Refund(
        tenant_id=TENANT,
        id=uuid4(),
        order_id=order.id,
        payment_id=order.payment_id,
        state=RefundState.REQUESTED,
        amount_minor=TOTAL_MINOR,
        currency="GBP",
        reason="",
        requested_at=NOW,
    )
    memory.execute(told(theirs, order, RefundSucceeded))
    memory.execute(captured(order))
    order = memory.get(Order, order.id)
    assert (order.state, order.payment_state, order.refunded_minor) == (OrderState.CANCELED, PaymentState.REFUNDED, TOTAL_MINOR)
    assert memory.get(Refund, theirs.id).state is RefundState.SUCCEEDED


@pytest.mark.parametrize("has_failed_first", [False, True])
def test_what_went_back_beyond_what_was_taken_is_written_down_and_the_failure_that_explains_it_puts_it_right(
    has_failed_first: bool,
) -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    first = ask(memory, order, restock=True)
    memory.execute(told(first, order, RefundSucceeded))
    second = replace(first, id=uuid4())
    news = [told(second, order, RefundPending), told(second, order, RefundSucceeded)]
    news.insert(0 if has_failed_first else 2, told(first, order, RefundFailed))
    for each in news:
        if memory.get(Order, order.id).refunded_minor + memory.get(Order, order.id).refunding_minor > TOTAL_MINOR:
            with pytest.raises(ConflictError, match="refund-exceeds-capture"):
                ask(memory, order, 1)
        memory.execute(each)
        memory.execute(each)
    order = memory.get(Order, order.id)
    assert (order.payment_state, order.refunded_minor, order.refunding_minor) == (PaymentState.REFUNDED, TOTAL_MINOR, 0)
    said = [each.event for each in memory.outbox if isinstance(each.event, OrderRefunded | OrderRefundFailed)]
    assert [each.refunded_minor for each in said] == [TOTAL_MINOR, 0 if has_failed_first else 2 * TOTAL_MINOR, TOTAL_MINOR]
    assert [(each.refund_id, each.code) for each in memory.events(OrderRefundFailed)] == [(first.id, "expired_card")]


def test_a_refund_that_never_was_is_not_taken_back() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    refund = ask(memory, order)
    memory.execute(told(refund, order, RefundFailed))
    assert (memory.events(OrderRefunded), memory.events(OrderRefundFailed)) == ([], [])


@pytest.mark.parametrize("end", [PaymentVoided, PaymentExpired])
def test_an_order_that_is_off_says_authorized_for_as_long_as_its_money_is_held(end: Any) -> None:
    memory = Memory(HANDLERS)
    order = sold(memory, is_captured=False)
    checkout = Checkout(
        tenant_id=TENANT,
        id=order.checkout_id,
        subject_id=order.subject_id,
        cart_id=order.cart_id,
        state=CheckoutState.CONFIRMED,
        method="m",
        body_digest="",
        order_id=order.id,
        payment_id=order.payment_id,
        started_at=NOW,
        expires_at=NOW,
    )
    memory.rows[Checkout, TENANT, checkout.id] = checkout
    memory.execute(CancelOrder(order_id=order.id, caller=STAFF))
    assert memory.get(Order, order.id).payment_state is PaymentState.AUTHORIZED
    for _ in range(2):
        memory.execute(end(payment_id=order.payment_id, checkout_id=checkout.id))
    off = memory.get(Order, order.id)
    assert (off.state, off.payment_state) == (OrderState.CANCELED, PaymentState.NONE)
    memory.execute(captured(order))
    assert memory.get(Order, order.id).payment_state is PaymentState.CAPTURED, "if the provider took it all the same"


ANSWERS = st.sampled_from([RefundPending, RefundSucceeded, RefundFailed])


@given(st.lists(st.tuples(st.integers(1, TOTAL_MINOR), st.lists(ANSWERS, max_size=4)), max_size=8))
@settings(max_examples=150)
def test_whatever_becomes_of_refunds_no_more_goes_back_than_was_taken(wishes: list[tuple[int, Sequence[type[Any]]]]) -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    for amount, answers in wishes:
        before = memory.get(Order, order.id)
        if amount > till.refundable_minor(before):
            with pytest.raises(ConflictError):
                ask(memory, order, amount)
            continue
        refund = ask(memory, order, amount)
        for kind in answers:
            memory.execute(told(refund, order, kind))
        order = memory.get(Order, order.id)
        refunds = memory.all(Refund)
        gone = sum(each.amount_minor for each in refunds if each.state is RefundState.SUCCEEDED)
        going = sum(each.amount_minor for each in refunds if each.state in {RefundState.REQUESTED, RefundState.PENDING})
        assert (order.refunded_minor, order.refunding_minor) == (gone, going)
        assert gone + going <= order.captured_minor
        assert (order.payment_state is PaymentState.REFUNDED) == (gone == TOTAL_MINOR)
        assert all(progress.refunded == 0 for progress in order.progress.values())
    assert len({event.refund_id for event in memory.events(RefundRequested)}) == len(memory.all(Refund))


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


def test_goods_that_came_back_are_not_put_on_the_shelf_again_by_their_refund() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    memory.execute(ShipmentDispatched(order_id=order.id, shipment_id="a", lines=lines(_1=3, _2=1)))
    memory.execute(ReturnReceived(order_id=order.id, return_id="r", lines=lines(_1=2), restock=True))
    for count, on_hand in ((2, 9), (1, 10)):
        refund = ask(memory, order, quantities={"1": count}, restock=True)
        memory.execute(told(refund, order, RefundSucceeded))
        assert memory.get(Stock, "tea").on_hand == on_hand


def test_what_fulfilment_says_is_believed_only_as_far_as_the_order_bears_it_out() -> None:
    memory = Memory(HANDLERS)
    order = sold(memory)
    lies: list[tuple[Any, type[CartwrightError]]] = [
        (ShipmentDispatched(order_id=uuid4(), shipment_id="a", lines=lines(_1=1)), NotFoundError),
        (ShipmentDispatched(order_id=order.id, shipment_id="a", lines=lines(_1=4)), RejectedError),
        (ShipmentDispatched(order_id=order.id, shipment_id="a", lines=(*lines(_1=2), *lines(_1=2))), RejectedError),
        (ShipmentDispatched(order_id=order.id, shipment_id="a", lines=lines(_9=1)), RejectedError),
        (ShipmentDelivered(order_id=order.id, shipment_id="a"), NotFoundError),
        (ReturnReceived(order_id=order.id, return_id="r", lines=lines(_1=1), restock=True), RejectedError),
    ]
    for event, refusal in lies:
        with pytest.raises(refusal):
            memory.execute(event)
    assert memory.get(Order, order.id) == order
