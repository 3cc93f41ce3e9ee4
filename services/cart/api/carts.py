"""HTTP in: carts for shoppers."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from fastapi import Response

from libs.common.clock import new_id, now
from libs.common.database import Connection
from libs.common.errors import RejectedError
from libs.common.http.paging import Limit, Page, Paging
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, reply, reply_unless_known
from libs.common.http.seeing import Sight, made_by_caller
from libs.common.money import CURRENCIES
from services.cart import domain, handlers, repository
from services.cart.api.models import CartModel, NewCart, cart_model
from services.cart.domain import Availability, Cart, CartState, Promotion

ROUTES = Routes(Facing.CUSTOMERS)
CART = Sight(repository.CARTS, "cart_id")


@dataclass(frozen=True, slots=True)
class Shown:
    """A cart with what is known of how its goods are to be had."""

    cart: Cart
    availability: Mapping[str, Availability] = field(default_factory=dict)


def _currency(body: NewCart | None) -> str | None:
    currency = body.currency if body else None
    if currency is not None and currency not in CURRENCIES:
        raise RejectedError("currency-not-supported", f"{currency!r} is not a currency this platform sells in")
    return currency


async def _shown(connection: Connection, call: Call, carts: Sequence[Cart]) -> list[Shown]:
    """Carts as they are shown: an open one at the prices and discounts of this moment."""
    opened = [cart for cart in carts if cart.state is CartState.OPEN]
    around = await repository.surroundings(connection, call.tenant_id, opened)
    availability = {sku: hint.availability for sku, hint in around.hints.items()}
    at = now()
    return [
        Shown(_at_this_moment(cart, around, at), availability) if cart.state is CartState.OPEN else Shown(cart) for cart in carts
    ]


async def shown_with(connection: Connection, call: Call, cart: Cart) -> tuple[Cart, Sequence[Promotion], datetime]:
    """A cart as it is shown at this moment, and the promotions that may be given to it."""
    at = now()
    if cart.state is not CartState.OPEN:
        return cart, (), at
    around = await repository.surroundings(connection, call.tenant_id, [cart])
    return _at_this_moment(cart, around, at), around.promotions, at


def _at_this_moment(cart: Cart, around: repository.Surroundings, at: datetime) -> Cart:
    return domain.discounted(domain.repriced(cart, around.products, at), around.promotions, at)


def _tag(stored: Cart, shown: Shown) -> str:
    """What tells one sight of a cart from another: its version, and what else there is to be seen by now."""
    cart = shown.cart
    if cart == stored and not shown.availability:
        return str(stored.version)
    seen = [
        [(line.unit_minor, line.was_minor, shown.availability.get(line.sku)) for line in cart.lines],
        *cart.discounts,
    ]
    return f"{stored.version}-{hashlib.sha256(orjson.dumps(seen)).hexdigest()[:16]}"


def cart_reply(call: Call, shown: Shown, status: int = 200, **headers: str) -> Response:
    """A cart as it was just written, each line at the price of when it was last put."""
    etag = f'"{shown.cart.version}"'
    if call.preferences.get("return") == "minimal":
        return reply(204, None, ETag=etag, **headers)
    return reply(status, cart_model(shown.cart, shown.availability), ETag=etag, **headers)


async def fresh_reply(call: Call, cart: Cart, status: int = 200) -> Response:
    """A cart of which not every line was just put."""
    if call.preferences.get("return") == "minimal":
        return cart_reply(call, Shown(cart))
    async with call.transaction() as connection:
        [shown] = await _shown(connection, call, [cart])
    return reply(status, cart_model(shown.cart, shown.availability), ETag=f'"{_tag(cart, shown)}"')


async def _create(call: Call, body: NewCart | None, chosen_id: UUID | None = None) -> Response:
    cart_id = chosen_id or new_id()
    command = handlers.CreateCart(cart_id=cart_id, caller=call.viewer, currency=_currency(body), is_new_id=chosen_id is None)
    cart, is_new = await call.execute(command)
    headers = {"Location": f"/v1/carts/{cart_id}"}
    return cart_reply(call, Shown(cart), 201, **headers) if is_new else await fresh_reply(call, cart)


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
    """The caller's own carts, those that are open at the prices and discounts of this moment."""
    asked = Paging(limit, cursor, UUID)
    async with call.transaction() as connection:
        found = await repository.CARTS.judged_page(
            connection, call.tenant_id, after=asked.after, limit=asked.most, where={"subject_id": call.principal.subject}
        )
        shown = iter(await _shown(connection, call, [cart for cart in found if isinstance(cart, Cart)]))
    page = [next(shown) if isinstance(each, Cart) else each for each in found]
    return asked.reply(page, lambda each: cart_model(each.cart, each.availability), lambda each: [each.cart.id])


@ROUTES.get("/v1/carts/{cart_id}", response_model=CartModel)
@guard("carts:read", sees=CART)
async def read_cart(call: Caller, cart_id: UUID) -> Response:
    """One cart; while it is open, at the prices and discounts of this moment."""
    async with call.transaction() as connection:
        cart = await CART.within(connection, call, cart_id)
        [shown] = await _shown(connection, call, [cart])
    return reply_unless_known(call, lambda: cart_model(shown.cart, shown.availability), _tag(cart, shown))


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
    return await fresh_reply(call, cart)
