"""Refunds of orders: asked for here, carried out by payments, whose word alone says what became of them."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from libs.common.contracts import Event
from libs.common.contracts.payments import RefundFailed, RefundPending, RefundSucceeded
from libs.common.decision import Message, Ref, Viewer, World
from libs.common.telemetry import Counter
from services.checkout import domain
from services.checkout.domain.order import Order
from services.checkout.domain.refund import Refund, RefundState, RefundWish
from services.checkout.handlers import stock
from services.checkout.handlers.orders import order_ref, stock_of_order
from services.checkout.handlers.table import HANDLERS

OVER_REFUNDED = Counter(
    "cartwright_order_refunds_beyond_capture_total", "Refunds after which more had gone back to the buyer than was taken"
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRefund:
    """Give the buyer some or all of an order's money back."""

    refund_id: UUID
    order_id: UUID
    caller: Viewer
    wish: RefundWish


@HANDLERS.on(RequestRefund, order_ref)
def request_refund(world: World, message: Message[RequestRefund]) -> Refund:
    """Set it aside on the order, and ask payments."""
    command = message.data
    order = command.caller.demand(Order, world.get(Order, command.order_id))
    changed, refund, event = domain.refund.request(order, command.refund_id, command.wish, world.now)
    world.save(changed)
    return world.save(refund, event)


def _refund(message: Message[Any]) -> list[Ref]:
    return [Ref(Order, message.data.order_id), Ref(Refund, message.data.refund_id)]


@HANDLERS.on(RefundPending, _refund)
def refund_pending(world: World, message: Message[RefundPending]) -> None:
    """The provider has taken it on."""
    _follow(world, message.data)


@HANDLERS.on(RefundSucceeded, _refund, more=stock_of_order)
def refund_succeeded(world: World, message: Message[RefundSucceeded]) -> None:
    """The buyer has it back; its goods go back on the shelf if that was asked for."""
    _follow(world, message.data)


@HANDLERS.on(RefundFailed, _refund)
def refund_failed(world: World, message: Message[RefundFailed]) -> None:
    """The money did not go back, or came back: it may be refunded again."""
    _follow(world, message.data)


def _follow(world: World, told: domain.refund.Told) -> None:
    order = world.get(Order, told.order_id)
    if order is None:
        return  # a payment that became no order: payments gives it back by itself
    known = world.get(Refund, told.refund_id)
    if known is None:
        order, known = domain.refund.heard_of(order, told, world.now)
    followed = domain.refund.follow(order, known, told)
    if followed is None:
        return
    order, refund = followed
    events: list[Event] = []
    if refund.state is RefundState.SUCCEEDED:
        order, refund, goods = domain.refund.put_back(order, refund)
        stock.restock_all(world, goods)
        events.append(domain.refund.said(order, refund))
        _report_beyond(order, refund)
    elif known.state is RefundState.SUCCEEDED:
        events.append(domain.refund.took_back(order, refund))
    world.save(refund)
    world.save(order, *events)


def _report_beyond(order: Order, refund: Refund) -> None:
    if beyond := domain.refund.beyond_minor(order):
        OVER_REFUNDED.inc()
        log.warning(
            "order.refunded_beyond_capture",
            order_id=str(order.id),
            refund_id=str(refund.id),
            beyond_minor=beyond,
            currency=order.currency,
            action="written down as it is; unless an earlier refund turns out to have failed, somebody gave back too much",
        )
