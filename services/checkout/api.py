"""HTTP in: checkouts, the orders they become, and stock."""

import asyncio
import hashlib
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import Path, Query, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from libs.common.clock import new_id, rfc3339
from libs.common.contracts.checkout import OrderLine
from libs.common.errors import NotFoundError
from libs.common.http.paging import Page, decode_cursor, page, text_key
from libs.common.http.routes import Call, Caller, Routes, guard, reply
from libs.common.messaging.shell import Answer, Replayed
from services.checkout import handlers, repository
from services.checkout.domain.saga import Checkout, CheckoutState, Order, Quote, QuoteLine
from services.checkout.domain.stock import Stock

ROUTES = Routes()
NEWEST = 2**62

Limit = Annotated[int, Query(ge=1, le=200)]
SkuPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PaymentChoice(_Body):
    """How the buyer pays: a payment method of the provider."""

    method: Annotated[str, Field(min_length=1, max_length=255)]


class Address(_Body):
    """Where to."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    line1: Annotated[str, Field(min_length=1, max_length=200)]
    line2: Annotated[str, Field(max_length=200)] | None = None
    city: Annotated[str, Field(min_length=1, max_length=100)]
    region: Annotated[str, Field(max_length=100)] | None = None
    postal_code: Annotated[str, Field(min_length=1, max_length=20)]
    country: Annotated[str, Field(pattern="^[A-Z]{2}$")]
    phone: Annotated[str, Field(max_length=30)] | None = None


class NewCheckout(_Body):
    """A cart to be bought."""

    cart_id: UUID
    payment: PaymentChoice
    email: Annotated[str, Field(max_length=320, pattern=r"^[^@\s]+@[^@\s]+$")] | None = None
    shipping_method: Annotated[str, Field(max_length=64)] | None = None
    shipping_address: Address | None = None
    billing_address: Address | None = None


class LineModel(BaseModel):
    """One line of a quote, and of the order it becomes."""

    line_id: str
    sku: str
    name: str
    quantity: int
    unit_minor: int
    total_minor: int


class QuoteModel(BaseModel):
    """What the order costs, fixed."""

    lines: list[LineModel]
    subtotal_minor: int
    discount_minor: int
    shipping_minor: int
    tax_minor: int
    total_minor: int
    hash: str


class CheckoutModel(BaseModel):
    """A checkout as clients see it. `order_id` is there once there is an order."""

    id: UUID
    state: str
    reason: str | None
    cart_id: UUID
    order_id: UUID | None
    payment_id: UUID | None
    currency: str | None
    total_minor: int | None
    quote: QuoteModel | None
    expires_at: str


class OrderModel(BaseModel):
    """An order as clients see it."""

    id: UUID
    number: int
    state: str
    payment_state: str
    fulfilment_state: str
    currency: str
    lines: list[LineModel]
    subtotal_minor: int
    discount_minor: int
    shipping_minor: int
    tax_minor: int
    total_minor: int
    checkout_id: UUID
    payment_id: UUID
    subject_id: UUID
    placed_at: str


class LevelModel(BaseModel):
    """Stock at one location."""

    location: str
    on_hand: int
    reserved: int
    sold: int


class StockModel(BaseModel):
    """Stock over all locations."""

    sku: str
    on_hand: int
    reserved: int
    sold: int
    locations: list[LevelModel]


def line_model(line: QuoteLine | OrderLine) -> LineModel:
    """A line for an answer."""
    return LineModel(
        line_id=line.line_id,
        sku=line.sku,
        name=line.name,
        quantity=line.quantity,
        unit_minor=line.unit_minor,
        total_minor=line.total_minor,
    )


def quote_model(quote: Quote) -> QuoteModel:
    """A quote for an answer."""
    return QuoteModel(
        lines=[line_model(line) for line in quote.lines],
        subtotal_minor=quote.subtotal_minor,
        discount_minor=quote.discount_minor,
        shipping_minor=quote.shipping_minor,
        tax_minor=quote.tax_minor,
        total_minor=quote.total_minor,
        hash=quote.digest,
    )


def checkout_model(checkout: Checkout) -> CheckoutModel:
    """A checkout for an answer."""
    return CheckoutModel(
        id=checkout.id,
        state=checkout.state,
        reason=checkout.reason,
        cart_id=checkout.cart_id,
        order_id=checkout.order_id if checkout.state is CheckoutState.CONFIRMED else None,
        payment_id=checkout.payment_id if checkout.quote else None,
        currency=checkout.currency,
        total_minor=checkout.total_minor,
        quote=quote_model(checkout.quote) if checkout.quote else None,
        expires_at=rfc3339(checkout.expires_at),
    )


def order_model(order: Order) -> OrderModel:
    """An order for an answer."""
    return OrderModel(
        id=order.id,
        number=order.number,
        state=order.state,
        payment_state=order.payment_state,
        fulfilment_state=order.fulfilment_state,
        currency=order.currency,
        lines=[line_model(line) for line in order.lines],
        subtotal_minor=order.subtotal_minor,
        discount_minor=order.discount_minor,
        shipping_minor=order.shipping_minor,
        tax_minor=order.tax_minor,
        total_minor=order.total_minor,
        checkout_id=order.checkout_id,
        payment_id=order.payment_id,
        subject_id=order.subject_id,
        placed_at=rfc3339(order.placed_at),
    )


def stock_model(stock: Stock) -> StockModel:
    """Stock for an answer."""
    return StockModel(
        sku=stock.sku,
        on_hand=stock.on_hand,
        reserved=stock.reserved,
        sold=stock.sold,
        locations=[
            LevelModel(location=location, on_hand=level.on_hand, reserved=level.reserved, sold=level.sold)
            for location, level in sorted(stock.levels.items())
        ],
    )


async def load_checkout(call: Call, checkout_id: UUID) -> Checkout:
    """The checkout, if it is any of the caller's business."""
    async with call.shell.database.transaction([call.tenant_id]) as connection:
        found = await repository.CHECKOUTS.load(connection, [(call.tenant_id, checkout_id)], lock=False)
    if not found or not call.principal.may_see(found[0].subject_id):
        raise NotFoundError("checkout-not-found", "there is no such checkout for you")
    return found[0]


async def _final(call: Call, checkout: Checkout, news: "asyncio.Future[None]", deadline: float) -> Checkout:
    """Wait for the checkout's end, at most until the deadline, without asking the database meanwhile."""
    if checkout.is_final or not call.wait_seconds:
        return checkout
    try:
        async with asyncio.timeout_at(deadline):
            await news
    except TimeoutError:
        pass  # a hint may be lost: look once more before saying that it is not over
    return await load_checkout(call, checkout.id)


def _deadline(call: Call) -> float:
    return asyncio.get_running_loop().time() + call.wait_seconds


def checkout_reply(call: Call, checkout: Checkout, **headers: str) -> Response:
    """200 once final, 202 before."""
    location = f"/v1/checkouts/{checkout.id}"
    status = 200 if checkout.is_final else 202
    return reply(status, checkout_model(checkout), Location=location, ETag=f'"{checkout.version}"', **call.applied, **headers)


@ROUTES.post("/v1/checkouts", status_code=202, response_model=CheckoutModel, responses={200: {"model": CheckoutModel}})
@guard("checkouts:write", idempotent=True)
async def start_checkout(call: Caller, body: NewCheckout) -> Response:
    """Buy a cart. 202 while it is under way; the outcome is the checkout's state and reason."""
    request = body.model_dump(mode="json", exclude={"email"}, exclude_none=True)
    checkout_id, deadline = new_id(), _deadline(call)
    command = handlers.StartCheckout(
        checkout_id=checkout_id,
        cart_id=body.cart_id,
        subject_id=call.principal.subject,
        method=body.payment.method,
        email=body.email,
        body_digest=hashlib.sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).hexdigest(),
        ttl_seconds=call.service.extras["checkout_ttl_seconds"],
    )

    def remember(checkout: Checkout) -> Answer:
        return Answer(0, headers={"resource": str(checkout.id)})

    with call.service.hints.expect(str(checkout_id)) as news:
        started: Any = await call.execute_once(command, remember, fingerprint_body=request)
        if isinstance(started, Checkout) and started.id == checkout_id:
            return checkout_reply(call, await _final(call, started, news, deadline))
    if isinstance(started, Replayed):
        checkout = await _read_final(call, UUID(started.answer.headers["resource"]), deadline)
        return checkout_reply(call, checkout, Idempotent_Replayed="true")
    return checkout_reply(call, await _read_final(call, started.id, deadline))


async def _read_final(call: Call, checkout_id: UUID, deadline: float) -> Checkout:
    """A checkout that was there before: as it is, or as it ends within the wait."""
    with call.service.hints.expect(str(checkout_id)) as news:
        return await _final(call, await load_checkout(call, checkout_id), news, deadline)


@ROUTES.get("/v1/checkouts/{checkout_id}", response_model=CheckoutModel)
@guard("checkouts:read")
async def read_checkout(call: Caller, checkout_id: UUID) -> Response:
    """One checkout; with `Prefer: wait`, once it is final."""
    checkout = await _read_final(call, checkout_id, _deadline(call))
    return reply(200, checkout_model(checkout), ETag=f'"{checkout.version}"', **call.applied)


@ROUTES.get("/v1/orders", response_model=Page[OrderModel])
@guard("orders:read")
async def list_orders(
    call: Caller,
    limit: Limit = 50,
    cursor: str | None = None,
    state: Annotated[str | None, Query(pattern="^(confirmed|canceled)$")] = None,
    subject_id: UUID | None = None,
    placed_after: AwareDatetime | None = None,
    placed_before: AwareDatetime | None = None,
) -> Response:
    """Orders, newest first: a shopper's own, or the tenant's."""
    before = decode_cursor(cursor, NEWEST, _number)
    async with call.shell.database.transaction([call.tenant_id]) as connection:
        orders = await repository.orders(
            connection,
            call.tenant_id,
            before=before,
            limit=limit + 1,
            subject_id=call.principal.subject if call.principal.is_shopper else subject_id,
            state=state,
            placed_after=placed_after,
            placed_before=placed_before,
        )
    return page([order_model(order) for order in orders], limit, lambda order: str(order.number))


def _number(key: str) -> int:
    number = int(key)
    if not 0 < number <= NEWEST:
        raise ValueError(key)
    return number


@ROUTES.get("/v1/orders/{order_id}", response_model=OrderModel)
@guard("orders:read")
async def read_order(call: Caller, order_id: UUID) -> Response:
    """One order."""
    async with call.shell.database.transaction([call.tenant_id]) as connection:
        found = await repository.ORDERS.load(connection, [(call.tenant_id, order_id)], lock=False)
    if not found or not call.principal.may_see(found[0].subject_id):
        raise NotFoundError("order-not-found", "there is no such order for you")
    return reply(200, order_model(found[0]), ETag=f'"{found[0].version}"')


@ROUTES.get("/v1/stock", response_model=Page[StockModel])
@guard("stock:read")
async def list_stock(call: Caller, limit: Limit = 50, cursor: str | None = None) -> Response:
    """Stock, by SKU."""
    after = decode_cursor(cursor, "", text_key)
    async with call.shell.database.transaction([call.tenant_id]) as connection:
        found = await repository.stock(connection, call.tenant_id, after=after, limit=limit + 1)
    return page([stock_model(stock) for stock in found], limit, lambda stock: stock.sku)


@ROUTES.get("/v1/stock/{sku}", response_model=StockModel)
@guard("stock:read")
async def read_stock(call: Caller, sku: SkuPath) -> Response:
    """One product's stock."""
    async with call.shell.database.transaction([call.tenant_id]) as connection:
        found = await repository.STOCK.load(connection, [(call.tenant_id, sku)], lock=False)
    if not found:
        raise NotFoundError("stock-not-found", "there is no stock of this SKU for you")
    return reply(200, stock_model(found[0]))
