"""An order of two lines with its goods, and what payments says of its refunds."""

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

from libs.common.contracts.checkout import (
    OrderLine,
)
from libs.common.contracts.fulfilment import FulfilmentLine
from libs.common.contracts.payments import (
    PaymentCaptured,
    RefundFailed,
    RefundPending,
)
from libs.common.decision import Viewer
from services.checkout.domain.order import FulfilmentState, Order, OrderState, PaymentState
from services.checkout.domain.refund import Refund, RefundWish
from services.checkout.domain.stock import Allocation, Level, Stock
from services.checkout.handlers.refunds import RequestRefund
from tests.shared.events import stock_counted, tenant_updated
from tests.unit.memory import NOW, TENANT, Memory

STAFF = Viewer(subject_id=UUID(int=9), sees_all=True)
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
    caller: Viewer = STAFF,
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
