"""What the fulfilment system says of an order: goods left, arrived, came back.

It is not ours, so nothing of it is believed that the order cannot bear out.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from libs.common.contracts.checkout import OrderFulfilled, OrderQuantity
from libs.common.contracts.fulfilment import FulfilmentLine
from libs.common.errors import ConflictError, NotFoundError, RejectedError
from services.checkout.domain.order import FulfilmentState, Order, OrderState, Progress, Shipment, shelve, unsent
from services.checkout.domain.stock import Allocation, Returned, leaving


def dispatch(
    order: Order, shipment_id: str, lines: Sequence[FulfilmentLine]
) -> tuple[Order, OrderFulfilled, list[Allocation]] | None:
    """Goods left the house; also says which. None: this shipment is known.

    Raises for goods that nobody ordered, or of a canceled order.
    """
    known = order.shipments.get(shipment_id, Shipment(lines=()))
    if known.lines:
        return None
    if order.state is OrderState.CANCELED:
        raise ConflictError("order-canceled", f"{shipment_id} left although order {order.number} had been canceled")
    quantities = _quantities(order, lines, most=lambda line_id: _quantity(order, line_id) - order.progress_of(line_id).shipped)
    progress = _moved(order, quantities, lambda known, count: replace(known, shipped=known.shipped + count))
    shipment = replace(known, lines=_as_lines(quantities))
    shipped = replace(order, shipments={**order.shipments, shipment_id: shipment}, progress=progress)
    event = OrderFulfilled(order_id=order.id, shipment_id=shipment_id, lines=shipment.lines)
    return _with_state(shipped), event, _gone(order, shipped)


def _gone(before: Order, after: Order) -> list[Allocation]:
    """The goods that lay in the house before and do not now."""
    ordered, lay, lie = Counter[str](), Counter[str](), Counter[str]()
    for line in before.lines:
        ordered[line.sku] += line.quantity
        lay[line.sku] += unsent(line, before.progress_of(line.line_id))
        lie[line.sku] += unsent(line, after.progress_of(line.line_id))
    found = [leaving(before.allocations, sku, lay[sku] - lie[sku], ordered[sku] - lay[sku]) for sku in ordered]
    return [each for goods in found for each in goods]


def deliver(order: Order, shipment_id: str) -> Order:
    """A shipment arrived, perhaps before we hear that it left: then what was in it is still to be told.

    Raises NotFoundError for one that cannot have left: of an order that is off, or beyond a shipment for each of its goods.
    """
    shipment = order.shipments.get(shipment_id)
    if shipment is None:
        if order.state is OrderState.CANCELED or len(order.shipments) >= sum(line.quantity for line in order.lines):
            raise NotFoundError("shipment-not-found", f"{shipment_id} of order {order.number} arrived and never left")
        shipment = Shipment(lines=())
    arrived = replace(shipment, is_delivered=True)
    return _with_state(replace(order, shipments={**order.shipments, shipment_id: arrived}))


def take_back(
    order: Order, return_id: str, lines: Sequence[FulfilmentLine], *, wants_restock: bool
) -> tuple[Order, list[Returned]] | None:
    """Goods came back; also says which of them go on the shelf. None: this return is known."""
    if return_id in order.returns:
        return None
    quantities = _quantities(order, lines, most=lambda line_id: _outside(order.progress_of(line_id)))
    shelved = 1 if wants_restock else 0
    progress = _moved(
        order,
        quantities,
        lambda known, count: replace(
            known, returned=known.returned + count, shelved_by_returns=known.shelved_by_returns + count * shelved
        ),
    )
    known = replace(order, returns={**order.returns, return_id: _as_lines(quantities)}, progress=progress)
    returned, goods = shelve(known, were_sent=True)
    return _with_state(returned), goods


def _quantities(order: Order, lines: Sequence[FulfilmentLine], *, most: Callable[[str], int]) -> dict[str, int]:
    """So many of each line, added up. Raises RejectedError when there cannot have been so many."""
    quantities: Counter[str] = Counter()
    for line in lines:
        quantities[line.line_id] += line.quantity
    for line_id, quantity in quantities.items():
        if order.line(line_id) is None:
            raise RejectedError("unknown-line", f"order {order.number} has no line {line_id!r}", line_id=line_id)
        if quantity > most(line_id):
            detail = f"{quantity} of line {line_id} of order {order.number}, where at most {most(line_id)} can be"
            raise RejectedError("too-many", detail, line_id=line_id)
    return dict(quantities)


def _quantity(order: Order, line_id: str) -> int:
    line = order.line(line_id)
    return line.quantity if line else 0


def _outside(progress: Progress) -> int:
    return progress.shipped - progress.returned


def _moved(order: Order, quantities: Mapping[str, int], move: Callable[[Progress, int], Progress]) -> dict[str, Progress]:
    return {**order.progress, **{line_id: move(order.progress_of(line_id), count) for line_id, count in quantities.items()}}


def _as_lines(quantities: Mapping[str, int]) -> tuple[OrderQuantity, ...]:
    return tuple(OrderQuantity(line_id=line_id, quantity=quantity) for line_id, quantity in quantities.items())


def _with_state(order: Order) -> Order:
    return replace(order, fulfilment_state=_fulfilment_state(order))


def _fulfilment_state(order: Order) -> FulfilmentState:
    ordered = sum(line.quantity for line in order.lines)
    shipped = sum(progress.shipped for progress in order.progress.values())
    if shipped and sum(progress.returned for progress in order.progress.values()) == shipped:
        return FulfilmentState.RETURNED
    if shipped < ordered:
        return FulfilmentState.PARTIALLY_FULFILLED if shipped else FulfilmentState.UNFULFILLED
    arrived = all(shipment.is_delivered for shipment in order.shipments.values())
    return FulfilmentState.DELIVERED if arrived else FulfilmentState.FULFILLED
