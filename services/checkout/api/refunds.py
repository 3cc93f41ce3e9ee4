"""HTTP in: refunds of orders."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Response
from pydantic import BaseModel, Field, field_validator

from libs.common.clock import new_id
from libs.common.contracts.external import NAMED
from libs.common.errors import NotFoundError
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, reply
from libs.common.messaging.idempotency import Answer, Replayed
from services.checkout import handlers
from services.checkout.api.models import Body, Reason
from services.checkout.api.orders import ORDER, RefundModel, load_order, refund_model
from services.checkout.domain.refund import Refund, RefundWish

ROUTES = Routes(Facing.CUSTOMERS)


class LineToRefund(Body):
    """So many of one line."""

    line_id: Annotated[str, Field(min_length=1, max_length=64), NAMED]
    quantity: Annotated[int, Field(ge=1, le=1_000_000)]


class NewRefund(Body):
    """What is to be given back: an amount, lines, an amount for lines, or with neither all that is left."""

    amount_minor: Annotated[int, Field(ge=1, le=9_000_000_000_000_000)] | None = None
    lines: Annotated[list[LineToRefund], Field(min_length=1, max_length=2_000)] | None = None
    restock: bool = False
    reason: Reason

    @field_validator("lines")
    @classmethod
    def _are_different(cls, lines: list[LineToRefund] | None) -> list[LineToRefund] | None:
        if lines and len({line.line_id for line in lines}) != len(lines):
            message = "name each line once"
            raise ValueError(message)
        return lines


class RefundsModel(BaseModel):
    """An order's refunds, the oldest first."""

    items: list[RefundModel]


@ROUTES.post("/v1/orders/{order_id}/refunds", status_code=202, response_model=RefundModel)
@guard("orders:refund", idempotent=True, sees=ORDER, goes_on=True)
async def request_refund(call: Caller, order_id: UUID, body: NewRefund) -> Response:
    """Give an order's money back, whole or in part. 202: payments says what becomes of it. 409 for more than is left."""
    wish = RefundWish(
        amount_minor=body.amount_minor,
        quantities={line.line_id: line.quantity for line in body.lines or ()},
        restock=body.restock,
        reason=body.reason,
    )
    command = handlers.refunds.RequestRefund(refund_id=new_id(), order_id=order_id, caller=call.viewer, wish=wish)
    answer: Any = await call.execute_once(command, lambda refund: Answer(0, headers={"resource": str(refund.id)}))
    if isinstance(answer, Replayed):
        refund = await _read(call, order_id, UUID(answer.answer.headers["resource"]))
        return _reply(call, refund, Idempotent_Replayed="true")
    return _reply(call, answer)


async def _read(call: Call, order_id: UUID, refund_id: UUID) -> Refund:
    _, refunds = await load_order(call, order_id)
    for refund in refunds:
        if refund.id == refund_id:
            return refund
    raise NotFoundError("refund-not-found", "there is no such refund for you")


def _reply(call: Call, refund: Refund, **headers: str) -> Response:
    # Payments has it under the same id as soon as it has heard of it.
    return reply(202, refund_model(call, refund), Location=f"/v1/refunds/{refund.id}", **headers)


@ROUTES.get("/v1/orders/{order_id}/refunds", response_model=RefundsModel)
@guard("orders:read", sees=ORDER)
async def list_refunds(call: Caller, order_id: UUID) -> Response:
    """An order's refunds, the oldest first."""
    _, refunds = await load_order(call, order_id)
    return reply(200, RefundsModel(items=[refund_model(call, refund) for refund in refunds]))
