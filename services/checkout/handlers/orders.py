"""An order after its confirmation: called off, contested, sent, taken back, written about and looked up."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from libs.common.contracts.checkout import OrderLookupRequested
from libs.common.contracts.fulfilment import ReturnReceived, ShipmentDelivered, ShipmentDispatched
from libs.common.contracts.payments import DisputeClosed, DisputeOpened
from libs.common.decision import Message, Ref, Viewer, World
from libs.common.errors import NotFoundError
from libs.common.messaging.timers import Timer
from services.checkout import domain
from services.checkout.domain import fulfilment
from services.checkout.domain.note import Note
from services.checkout.domain.order import Order
from services.checkout.domain.stock import Stock
from services.checkout.handlers import stock
from services.checkout.handlers.table import HANDLERS

LOOKUP_TIMER = "order-lookup"


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelOrder:
    """Call an order off before its money is taken."""

    order_id: UUID
    caller: Viewer


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteNote:
    """Write something down about an order."""

    order_id: UUID
    caller: Viewer
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskForLink:
    """Somebody without an account wants to see an order. `order_id` is any id at all when there is none for what they said."""

    order_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class SendLink:
    """Have the buyer of this order, if there is one, sent a link to it."""

    order_id: UUID
    lookup_id: UUID


def order_ref(message: Message[Any]) -> list[Ref]:
    """The order that a message is about."""
    return [Ref(Order, message.data.order_id)]


def stock_of_order(world: World, message: Message[Any]) -> Iterable[Ref]:
    """The stock from which the order's goods were sold."""
    order = world.get(Order, message.data.order_id)
    return {Ref(Stock, allocation.sku) for allocation in order.allocations} if order else set()


@HANDLERS.on(CancelOrder, order_ref, more=stock_of_order)
def cancel_order(world: World, message: Message[CancelOrder]) -> Order:
    """Call it off and put its goods back; payments lets go of the money, or gives it back where it was faster."""
    order = message.data.caller.demand(Order, world.get(Order, message.data.order_id))
    domain.order.demand_cancelable(order)
    canceled, event, goods = domain.order.cancel(order, "canceled")
    stock.restock_all(world, goods)
    return world.save(canceled, event)


@HANDLERS.on(WriteNote, lambda m: [Ref(Order, m.data.order_id, shared=True)])
def write_note(world: World, message: Message[WriteNote]) -> Note:
    """Answers the note."""
    command = message.data
    order = command.caller.demand(Order, world.get(Order, command.order_id))
    note = Note(
        tenant_id=world.tenant_id,
        id=world.new_id(),
        order_id=order.id,
        body=command.body,
        author=str(command.caller.subject_id),
        written_at=world.now,
    )
    return world.save(note)


# --- Looking up ---------------------------------------------------------------------------------------------------


@HANDLERS.on(AskForLink, lambda _: [])
def ask_for_link(world: World, message: Message[AskForLink]) -> None:
    """Leave it to a timer, which is set whether there is such an order or not: so the answer takes as long either way."""
    world.remind(LOOKUP_TIMER, message.data.order_id, world.now)


def send_link_for(timer: Timer) -> SendLink:
    """The command of one lookup. A timer that fires twice asks for one link, by its id."""
    return SendLink(order_id=timer.key, lookup_id=uuid5(timer.key, timer.due_at.isoformat()))


@HANDLERS.on(SendLink, lambda m: [Ref(Order, m.data.order_id, shared=True)])
def send_link(world: World, message: Message[SendLink]) -> str:
    """Tell whoever writes to buyers for this tenant. Of nobody's order there is nothing to tell."""
    order = world.get(Order, message.data.order_id)
    if order is None:
        return "nothing"
    world.publish(OrderLookupRequested(lookup_id=message.data.lookup_id, order_id=order.id), 1)
    return "told"


# --- What payments says of disputes -------------------------------------------------------------------------------


@HANDLERS.on(DisputeOpened, order_ref)
def dispute_opened(world: World, message: Message[DisputeOpened]) -> None:
    """The buyer's bank contests the payment."""
    _dispute(world, message, domain.order.OPEN_DISPUTE)


@HANDLERS.on(DisputeClosed, order_ref)
def dispute_closed(world: World, message: Message[DisputeClosed]) -> None:
    """The case is over: lost, it stays shown; else the order's money is as it was."""
    _dispute(world, message, message.data.outcome)


def _dispute(world: World, message: Message[DisputeOpened] | Message[DisputeClosed], standing: str) -> None:
    order = world.get(Order, message.data.order_id)
    if order is not None:
        changed = domain.order.dispute(order, message.data.dispute_id, standing)
        if changed != order:
            world.save(changed)


# --- What fulfilment says -----------------------------------------------------------------------------------------


def _demand_order(world: World, order_id: UUID) -> Order:
    order = world.get(Order, order_id)
    if order is None:
        raise NotFoundError("order-not-found", f"fulfilment speaks of an order {order_id} that this tenant does not have")
    return order


@HANDLERS.on(ShipmentDispatched, order_ref, more=stock_of_order)
def shipment_dispatched(world: World, message: Message[ShipmentDispatched]) -> None:
    """Goods left the house."""
    order = _demand_order(world, message.data.order_id)
    dispatched = fulfilment.dispatch(order, message.data.shipment_id, message.data.lines)
    if dispatched is not None:
        shipped, event, goods = dispatched
        stock.send_all(world, goods, message.time)
        world.save(shipped, event)


@HANDLERS.on(ShipmentDelivered, order_ref)
def shipment_delivered(world: World, message: Message[ShipmentDelivered]) -> None:
    """A shipment arrived."""
    order = _demand_order(world, message.data.order_id)
    delivered = fulfilment.deliver(order, message.data.shipment_id)
    if delivered != order:
        world.save(delivered)


@HANDLERS.on(ReturnReceived, order_ref, more=stock_of_order)
def return_received(world: World, message: Message[ReturnReceived]) -> None:
    """Goods came back, and with `restock` may be sold again."""
    fact = message.data
    order = _demand_order(world, fact.order_id)
    taken = fulfilment.take_back(order, fact.return_id, fact.lines, wants_restock=fact.restock)
    if taken is not None:
        returned, goods = taken
        stock.restock_all(world, goods)
        world.save(returned)
