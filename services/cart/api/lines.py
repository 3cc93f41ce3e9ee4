"""HTTP in: what stands in carts."""

from typing import Any
from urllib.parse import quote
from uuid import UUID

from fastapi import Response

from libs.common.errors import RejectedError
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, replay, reply
from libs.common.messaging.idempotency import Answer, Replayed
from services.cart import handlers
from services.cart.api.carts import CART, Shown, cart_reply, fresh_reply
from services.cart.api.models import CartModel, LineAnswer, LineQuantity, NewLine, NewLines, Put, SkuPath, line_model
from services.cart.handlers import Written

ROUTES = Routes(Facing.CUSTOMERS)


@ROUTES.put("/v1/carts/{cart_id}/lines", response_model=CartModel)
@guard("carts:write", sees=CART)
async def replace_lines(call: Caller, cart_id: UUID, body: NewLines) -> Response:
    """Put these lines in the place of all."""
    quantities = {line.sku: line.quantity for line in body.lines}
    if len(quantities) != len(body.lines):
        raise RejectedError("duplicate-sku", "a SKU stands on one line; add the quantities up")
    command = handlers.PutLines(
        cart_id=cart_id, caller=call.viewer, quantities=quantities, replace_all=True, if_match=call.if_match()
    )
    written: Written = await call.execute(command)
    return cart_reply(call, Shown(written.cart, written.availability))


def line_answer(call: Call, written: Written, sku: str, status: int) -> Response:
    """The line, the totals, and the cart's version; or as much as the caller prefers."""
    cart = written.cart
    line = cart.line(sku)
    if line is None or call.preferences.get("return") in {"minimal", "representation"}:
        return cart_reply(call, Shown(cart, written.availability), status)
    answer = LineAnswer(
        line=line_model(line, cart.line_discounts().get(sku, 0), written.availability.get(sku)),
        subtotal_minor=cart.subtotal_minor,
        discount_minor=cart.discount_minor,
        total_minor=cart.total_minor,
        version=cart.version,
    )
    location = {"Location": f"/v1/carts/{cart.id}/lines/{quote(sku, safe='')}"} if status == 201 else {}
    return reply(status, answer, ETag=f'"{cart.version}"', **location)


@ROUTES.put("/v1/carts/{cart_id}/lines/{sku}", response_model=Put, responses={201: {"model": Put}})
@guard("carts:write", sees=CART)
async def put_line(call: Caller, cart_id: UUID, sku: SkuPath, body: LineQuantity) -> Response:
    """Put so many of a SKU, in the place of what stood there."""
    command = handlers.PutLines(cart_id=cart_id, caller=call.viewer, quantities={sku: body.quantity}, if_match=call.if_match())
    written: Written = await call.execute(command)
    status = 201 if written.is_new else 200
    if call.preferences.get("return") == "representation":
        return await fresh_reply(call, written.cart, status)
    return line_answer(call, written, sku, status)


@ROUTES.post("/v1/carts/{cart_id}/lines", response_model=Put)
@guard("carts:write", idempotent=True, sees=CART)
async def add_line(call: Caller, cart_id: UUID, body: NewLine) -> Response:
    """Put so many more of a SKU."""
    command = handlers.AddQuantity(cart_id=cart_id, caller=call.viewer, sku=body.sku, quantity=body.quantity)

    def remember(written: Written) -> Answer:
        response = line_answer(call, written, body.sku, 200)
        return Answer(response.status_code, bytes(response.body) or None, {"ETag": f'"{written.cart.version}"'})

    written: Any = await call.execute_once(command, remember)
    return replay(written) if isinstance(written, Replayed) else line_answer(call, written, body.sku, 200)


@ROUTES.delete("/v1/carts/{cart_id}/lines", status_code=204)
@guard("carts:write", sees=CART)
async def clear_lines(call: Caller, cart_id: UUID) -> Response:
    """Empty the cart."""
    command = handlers.RemoveLines(cart_id=cart_id, caller=call.viewer, sku=None, if_match=call.if_match())
    written: Written = await call.execute(command)
    return reply(204, None, ETag=f'"{written.cart.version}"')


@ROUTES.delete("/v1/carts/{cart_id}/lines/{sku}", status_code=204)
@guard("carts:write", sees=CART)
async def remove_line(call: Caller, cart_id: UUID, sku: SkuPath) -> Response:
    """Take one line away."""
    command = handlers.RemoveLines(cart_id=cart_id, caller=call.viewer, sku=sku, if_match=call.if_match())
    written: Written = await call.execute(command)
    return reply(204, None, ETag=f'"{written.cart.version}"')
