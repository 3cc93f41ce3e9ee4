"""HTTP in: carts for shoppers, and the products that may go in them."""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

import orjson
from fastapi import Path, Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.clock import new_id, now, rfc3339
from libs.common.contracts.external import Sku
from libs.common.database import Connection
from libs.common.errors import RejectedError
from libs.common.http.audit import audit_routes
from libs.common.http.exports import export_routes
from libs.common.http.members import Moment
from libs.common.http.paging import Limit, Page, Paging
from libs.common.http.parked import parked_routes
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, replay, reply, reply_unless_known
from libs.common.http.seeing import Sight, made_by_caller
from libs.common.messaging.idempotency import Answer, Replayed
from libs.common.money import CURRENCIES
from services.cart import domain, handlers, repository, tables
from services.cart.domain import MAX_LINES, MAX_QUANTITY, Cart, CartState, Line, Product

ROUTES = Routes(Facing.CUSTOMERS)
ROUTES.include_router(parked_routes("cart"))
ROUTES.include_router(audit_routes())
ROUTES.include_router(export_routes("cart", tables.HOLDINGS))

Quantity = Annotated[int, Field(ge=1, le=MAX_QUANTITY, strict=True)]
SkuPath = Annotated[Sku, Path()]
CART = Sight(repository.CARTS, "cart_id")
PRODUCT = Sight(repository.PRODUCTS, "sku")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewCart(_Body):
    """A cart to be made."""

    currency: str | None = None


class LineQuantity(_Body):
    """How many of the SKU in the path."""

    quantity: Quantity


class NewLine(_Body):
    """How many of which SKU."""

    sku: Sku
    quantity: Quantity


class NewLines(_Body):
    """Every line of a cart."""

    lines: Annotated[list[NewLine], Field(max_length=MAX_LINES)]


class LineModel(BaseModel):
    """A line as clients see it."""

    sku: str
    name: str
    quantity: int
    unit_minor: int
    price_was_minor: Annotated[int | None, Field(description="What one cost when it was put in, while that is another price")]
    discount_minor: int
    total_minor: int
    price_sequence: int
    availability: str = "unknown"


class CartModel(BaseModel):
    """A cart as clients see it."""

    id: UUID
    state: CartState
    version: int
    currency: str
    lines: list[LineModel]
    subtotal_minor: int
    discount_minor: int
    total_minor: int
    checkout_id: UUID | None
    order_id: UUID | None
    expires_at: Moment


class LineAnswer(BaseModel):
    """A line that was put, and what the cart comes to."""

    line: LineModel
    subtotal_minor: int
    discount_minor: int
    total_minor: int
    version: int


Put = LineAnswer | CartModel
"""What a line that was put is answered with; the whole cart with `Prefer: return=representation`."""


class ProductModel(BaseModel):
    """A product as clients see it, at its price in the tenant's currency."""

    sku: str
    name: str
    category: str
    currency: str | None
    unit_minor: int | None
    sequence: int
    withdrawn: bool


def line_model(line: Line) -> LineModel:
    """A line for an answer."""
    return LineModel(
        sku=line.sku,
        name=line.name,
        quantity=line.quantity,
        unit_minor=line.unit_minor,
        price_was_minor=line.was_minor,
        discount_minor=0,
        total_minor=line.total_minor,
        price_sequence=line.price_sequence,
    )


def cart_model(cart: Cart) -> CartModel:
    """A cart for an answer."""
    return CartModel(
        id=cart.id,
        state=cart.state,
        version=cart.version,
        currency=cart.currency,
        lines=[line_model(line) for line in cart.lines],
        subtotal_minor=cart.total_minor,
        discount_minor=0,
        total_minor=cart.total_minor,
        checkout_id=cart.checkout_id,
        order_id=cart.order_id,
        expires_at=rfc3339(cart.expires_at),
    )


def product_model(product: Product, currency: str) -> ProductModel:
    """A product for an answer."""
    price = product.price_in(currency, now())
    return ProductModel(
        sku=product.sku,
        name=product.name,
        category=product.category,
        currency=currency if price else None,
        unit_minor=price.unit_minor if price else None,
        sequence=product.catalog_sequence,
        withdrawn=product.withdrawn,
    )


def _currency(body: NewCart | None) -> str | None:
    currency = body.currency if body else None
    if currency is not None and currency not in CURRENCIES:
        raise RejectedError("currency-not-supported", f"{currency!r} is not a currency this platform sells in")
    return currency


async def _priced(connection: Connection, call: Call, carts: Sequence[Cart]) -> list[Cart]:
    """Carts as they are shown: an open one at the prices of this moment."""
    opened = [cart for cart in carts if cart.state is CartState.OPEN]
    products = await repository.products_of(connection, call.tenant_id, opened)
    return [domain.repriced(cart, products, now()) if cart.state is CartState.OPEN else cart for cart in carts]


def _tag(stored: Cart, shown: Cart) -> str:
    """What tells one sight of a cart from another: its version, and its prices if they are others by now."""
    if shown == stored:
        return str(stored.version)
    prices = orjson.dumps([(line.unit_minor, line.was_minor) for line in shown.lines])
    return f"{stored.version}-{hashlib.sha256(prices).hexdigest()[:16]}"


def _cart_reply(call: Call, cart: Cart, status: int = 200, **headers: str) -> Response:
    """A cart as it was just written, each line at the price of when it was last put."""
    etag = f'"{cart.version}"'
    if call.preferences.get("return") == "minimal":
        return reply(204, None, ETag=etag, **headers)
    return reply(status, cart_model(cart), ETag=etag, **headers)


async def _priced_reply(call: Call, cart: Cart, status: int = 200) -> Response:
    """A cart of which not every line was just put."""
    if call.preferences.get("return") == "minimal":
        return _cart_reply(call, cart)
    async with call.transaction() as connection:
        [shown] = await _priced(connection, call, [cart])
    return reply(status, cart_model(shown), ETag=f'"{_tag(cart, shown)}"')


async def _create(call: Call, body: NewCart | None, chosen_id: UUID | None = None) -> Response:
    cart_id = chosen_id or new_id()
    command = handlers.CreateCart(cart_id=cart_id, caller=call.viewer, currency=_currency(body), is_new_id=chosen_id is None)
    cart, is_new = await call.execute(command)
    headers = {"Location": f"/v1/carts/{cart_id}"}
    return _cart_reply(call, cart, 201, **headers) if is_new else await _priced_reply(call, cart)


@ROUTES.post("/v1/carts", status_code=201, response_model=CartModel)
@guard("carts:write", costly=True)
async def create_cart(call: Caller, body: NewCart | None = None) -> Response:
    """Make an empty cart."""
    return await _create(call, body)


@ROUTES.put("/v1/carts/{cart_id}", response_model=CartModel, responses={201: {"model": CartModel}})
@guard("carts:write", sees=made_by_caller, costly=True)
async def create_cart_with_id(call: Caller, cart_id: UUID, body: NewCart | None = None) -> Response:
    """Make an empty cart under an id of the client's choice; again, it is the same cart."""
    return await _create(call, body, cart_id)


@ROUTES.get("/v1/carts", response_model=Page[CartModel])
@guard("carts:read")
async def list_carts(call: Caller, limit: Limit = 50, cursor: str | None = None) -> Response:
    """The caller's own carts, those that are open at the prices of this moment."""
    asked = Paging(limit, cursor, UUID)
    async with call.transaction() as connection:
        found = await repository.CARTS.judged_page(
            connection, call.tenant_id, after=asked.after, limit=asked.most, where={"subject_id": call.principal.subject}
        )
        priced = iter(await _priced(connection, call, [cart for cart in found if isinstance(cart, Cart)]))
    return asked.reply([next(priced) if isinstance(each, Cart) else each for each in found], cart_model, lambda cart: [cart.id])


@ROUTES.get("/v1/carts/{cart_id}", response_model=CartModel)
@guard("carts:read", sees=CART)
async def read_cart(call: Caller, cart_id: UUID) -> Response:
    """One cart; while it is open, at the prices of this moment."""
    async with call.transaction() as connection:
        cart = await CART.within(connection, call, cart_id)
        [shown] = await _priced(connection, call, [cart])
    return reply_unless_known(call, lambda: cart_model(shown), _tag(cart, shown))


class _Claimable(Sight[Cart]):
    """A cart that is the caller's, or was while they were a guest."""

    async def seen(self, connection: Connection, call: Call, key: Any, *, ends: bool = False) -> Cart | None:
        """The cart with this key, or None. Nobody claims what is another's, staff neither."""
        found = await repository.CARTS.load(connection, [(call.tenant_id, key)], lock=False, ends=ends)
        mine = {call.principal.subject, call.principal.former_subject}
        return found[0] if found and found[0].subject_id in mine else None


@ROUTES.post("/v1/carts/{cart_id}/claim", response_model=CartModel)
@guard("carts:write", sees=_Claimable(repository.CARTS, "cart_id"))
async def claim_cart(call: Caller, cart_id: UUID) -> Response:
    """Take over a cart from the guest that one was; `guest_refresh_token` of `POST /v1/sessions` says who that was."""
    who = call.principal
    cart = await call.execute(handlers.ClaimCart(cart_id=cart_id, claimer_id=who.subject, former_id=who.former_subject))
    return _cart_reply(call, cart)


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
    cart, _ = await call.execute(command)
    return _cart_reply(call, cart)


def line_answer(call: Call, cart: Cart, sku: str, status: int) -> Response:
    """The line, the totals, and the cart's version; or as much as the caller prefers."""
    line = cart.line(sku)
    if line is None or call.preferences.get("return") in {"minimal", "representation"}:
        return _cart_reply(call, cart, status)
    answer = LineAnswer(
        line=line_model(line),
        subtotal_minor=cart.total_minor,
        discount_minor=0,
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
    cart, is_new = await call.execute(command)
    status = 201 if is_new else 200
    if call.preferences.get("return") == "representation":
        return await _priced_reply(call, cart, status)
    return line_answer(call, cart, sku, status)


@ROUTES.post("/v1/carts/{cart_id}/lines", response_model=Put)
@guard("carts:write", idempotent=True, sees=CART)
async def add_line(call: Caller, cart_id: UUID, body: NewLine) -> Response:
    """Put so many more of a SKU."""
    command = handlers.AddQuantity(cart_id=cart_id, caller=call.viewer, sku=body.sku, quantity=body.quantity)

    def remember(cart: Cart) -> Answer:
        response = line_answer(call, cart, body.sku, 200)
        return Answer(response.status_code, bytes(response.body) or None, {"ETag": f'"{cart.version}"'})

    cart: Any = await call.execute_once(command, remember)
    return replay(cart) if isinstance(cart, Replayed) else line_answer(call, cart, body.sku, 200)


@ROUTES.delete("/v1/carts/{cart_id}/lines", status_code=204)
@guard("carts:write", sees=CART)
async def clear_lines(call: Caller, cart_id: UUID) -> Response:
    """Empty the cart."""
    command = handlers.RemoveLines(cart_id=cart_id, caller=call.viewer, sku=None, if_match=call.if_match())
    cart = await call.execute(command)
    return reply(204, None, ETag=f'"{cart.version}"')


@ROUTES.delete("/v1/carts/{cart_id}/lines/{sku}", status_code=204)
@guard("carts:write", sees=CART)
async def remove_line(call: Caller, cart_id: UUID, sku: SkuPath) -> Response:
    """Take one line away."""
    command = handlers.RemoveLines(cart_id=cart_id, caller=call.viewer, sku=sku, if_match=call.if_match())
    cart = await call.execute(command)
    return reply(204, None, ETag=f'"{cart.version}"')


async def _tenant_currency(call: Call, connection: Any) -> str:
    found = await repository.TENANTS.load(connection, [(call.tenant_id, call.tenant_id)], lock=False)
    return found[0].currency if found else ""


@ROUTES.get("/v1/products", response_model=Page[ProductModel])
@guard("products:read")
async def list_products(call: Caller, limit: Limit = 50, cursor: str | None = None) -> Response:
    """What the catalogue told us, by SKU."""
    asked = Paging(limit, cursor, str)
    async with call.transaction() as connection:
        currency = await _tenant_currency(call, connection)
        found = await repository.PRODUCTS.judged_page(connection, call.tenant_id, after=asked.after, limit=asked.most)
    return asked.reply(found, lambda product: product_model(product, currency), lambda product: [product.sku])


@ROUTES.get("/v1/products/{sku}", response_model=ProductModel)
@guard("products:read", sees=PRODUCT)
async def read_product(call: Caller, sku: SkuPath) -> Response:
    """One product."""
    async with call.transaction() as connection:
        currency = await _tenant_currency(call, connection)
        product = await PRODUCT.within(connection, call, sku)
    return reply(200, product_model(product, currency))
