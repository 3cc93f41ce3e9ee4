"""Events of the fulfilment system (`fulfilment.v1`), which is not ours: its input is not to be trusted.

A sequence counts the events of one order, so what left and what came back are read in the order in which it happened.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import MaxLen, MinLen

from libs.common.contracts import Event, event
from libs.common.contracts.external import Id, Name, Quantity, Truth


@dataclass(frozen=True, kw_only=True, slots=True)
class FulfilmentLine:
    """So many goods of one line of the order, by the `line_id` that `order.confirmed` gave it."""

    line_id: Name
    quantity: Quantity


Lines = Annotated[tuple[FulfilmentLine, ...], MinLen(1), MaxLen(2_000)]
"""An order has no more lines than that."""


@event("fulfilment.v1", "shipment.dispatched", aggregate="order_id")
class ShipmentDispatched(Event):
    """These goods left the house. An order may go in several shipments."""

    order_id: Id
    shipment_id: Name
    lines: Lines


@event("fulfilment.v1", "shipment.delivered", aggregate="order_id")
class ShipmentDelivered(Event):
    """The shipment arrived."""

    order_id: Id
    shipment_id: Name


@event("fulfilment.v1", "return.received", aggregate="order_id")
class ReturnReceived(Event):
    """These goods came back. With `restock` they may be sold again."""

    order_id: Id
    return_id: Name
    lines: Lines
    restock: Truth
