"""Events of the fulfilment system (`fulfilment.v1`), which is not ours: its input is not to be trusted.

A sequence counts the events of one order, so what left and what came back are read in the order in which it happened.
"""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from annotated_types import MaxLen, MinLen

from libs.common.contracts import Event, Quantity, event

ForeignId = Annotated[str, MinLen(1), MaxLen(64)]
"""An id that the fulfilment system gave, in whatever form it likes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FulfilmentLine:
    """So many goods of one line of the order, by the `line_id` that `order.confirmed` gave it."""

    line_id: Annotated[str, MinLen(1), MaxLen(64)]
    quantity: Quantity


Lines = Annotated[tuple[FulfilmentLine, ...], MinLen(1), MaxLen(2_000)]
"""An order has no more lines than that."""


@event("fulfilment.v1", "shipment.dispatched", aggregate="order_id")
class ShipmentDispatched(Event):
    """These goods left the house. An order may go in several shipments."""

    order_id: UUID
    shipment_id: ForeignId
    lines: Lines


@event("fulfilment.v1", "shipment.delivered", aggregate="order_id")
class ShipmentDelivered(Event):
    """The shipment arrived."""

    order_id: UUID
    shipment_id: ForeignId


@event("fulfilment.v1", "return.received", aggregate="order_id")
class ReturnReceived(Event):
    """These goods came back. With `restock` they may be sold again."""

    order_id: UUID
    return_id: ForeignId
    lines: Lines
    restock: bool
