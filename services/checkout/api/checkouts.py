"""HTTP in: checkouts."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import quote
from uuid import UUID

import orjson
from fastapi import Response
from pydantic import BaseModel, Field, model_validator

from libs.common.clock import new_id, rfc3339
from libs.common.contracts.checkout import PAYMENT_METHOD
from libs.common.contracts.external import NAMED
from libs.common.http.members import Moment
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, reply, reply_unless_known
from libs.common.http.seeing import Sight
from libs.common.messaging.idempotency import Answer, Replayed
from services.checkout import handlers, repository
from services.checkout.api.models import AddressModel, Body, Email, QuoteModel, address_of, quote_model
from services.checkout.domain.card_testing import Payer
from services.checkout.domain.returning import MOST_CHARACTERS, PLACE
from services.checkout.domain.saga import Checkout, CheckoutState, Confirmation
from services.checkout.handlers.checkouts import Terms

ROUTES = Routes(Facing.CUSTOMERS)
CHECKOUT = Sight(repository.CHECKOUTS, "checkout_id")


Method = Annotated[
    str, Field(pattern=f"^{PAYMENT_METHOD}$", description="The provider's id of it", examples=["pm_card_visa"]), NAMED
]


PAID: Final = {"method": "pm_card_visa"}


class PaymentChoice(Body):
    """How the buyer pays: with a payment method of the provider, by confirming in their own browser, or says so `later`.

    Later means: the checkout rests as `reserved` with its quote for the buyer to see, until it is resumed with a payment.
    What it holds is its own until it expires.
    """

    method: (
        Annotated[str, Field(pattern=f"^{PAYMENT_METHOD}$", description="The provider's id of it", examples=["pm_card_visa"])]
        | None
    ) = None
    confirmation: Literal["client", "later"] | None = None
    return_url: Annotated[
        str | None,
        Field(
            pattern=f"^{PLACE}$",
            max_length=MOST_CHARACTERS,
            description="With a method: the shop's page that the bank leads back to if it wants to see its customer. "
            "At an origin that the tenant allows; `{checkout_id}` in it stands for the checkout's id",
            examples=["https://shop.example.com/purchases/{checkout_id}"],
        ),
    ] = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.method is None) == (self.confirmation is None):
            message = 'give a method, or a confirmation: "client" or "later"'
            raise ValueError(message)
        if self.return_url is not None and self.method is None:
            message = "return_url goes with a method: who confirms in the browser says there where it leads back to"
            raise ValueError(message)
        return self

    @property
    def confirming(self) -> Confirmation:
        """Who confirms. Who pays later has no method yet, and nobody confirms anything."""
        return "client" if self.confirmation == "client" else "server"


class Resumption(Body):
    """How the buyer pays, for a checkout that is `reserved`. Any other goes on as it began."""

    payment: Annotated[PaymentChoice | None, Field(examples=[PAID])] = None


class NewCheckout(Body):
    """A cart to be bought."""

    cart_id: UUID
    payment: Annotated[PaymentChoice, Field(examples=[PAID])]
    email: Email | None = None
    shipping_method: Annotated[str, Field(max_length=64), NAMED] | None = None
    shipping_address: AddressModel | None = None
    billing_address: AddressModel | None = None
    accept_price_changes: Annotated[
        bool, Field(description="Buy also at prices that rose since the goods were put in the cart; else it ends `price-changed`")
    ] = False


class CheckoutModel(BaseModel):
    """A checkout as clients see it. `order_id` is there once there is an order."""

    id: UUID
    state: CheckoutState
    reason: str | None
    cart_id: UUID
    order_id: UUID | None
    payment_id: UUID | None
    currency: str | None
    total_minor: int | None
    action_required: Annotated[
        bool, Field(description="The payer has to do something: say how to pay if `reserved`, else ask payments what")
    ]
    quote: QuoteModel | None
    waiting_room: Annotated[
        str | None,
        Field(description="Where its buyer queues, if it ended `waiting-room`", examples=["/v1/drops/tea/places"]),
    ]
    expires_at: Moment


def checkout_model(checkout: Checkout) -> CheckoutModel:
    """A checkout for an answer."""
    return CheckoutModel(
        id=checkout.id,
        state=checkout.state,
        reason=checkout.reason,
        cart_id=checkout.cart_id,
        order_id=checkout.order_id if checkout.state is CheckoutState.CONFIRMED else None,
        payment_id=checkout.payment_id if checkout.asks_for_money else None,
        currency=checkout.currency,
        total_minor=checkout.total_minor,
        action_required=checkout.is_waiting_for_payer,
        quote=quote_model(checkout.quote) if checkout.quote else None,
        waiting_room=f"/v1/drops/{quote(checkout.waiting_for, safe='')}/places" if checkout.waiting_for else None,
        expires_at=rfc3339(checkout.expires_at),
    )


Done = Callable[[Checkout], bool]
"""What a caller waits for."""


def is_over(checkout: Checkout) -> bool:
    """It has come to its end."""
    return checkout.is_final


def is_over_or_up_to_payer(checkout: Checkout) -> bool:
    """It has come to its end, or will not unless the payer does something: who started it must know at once."""
    return checkout.is_final or checkout.is_waiting_for_payer


async def awaited(call: Call, checkout: Checkout, news: "asyncio.Future[None]", deadline: float, done: Done) -> Checkout:
    """Wait until it is done, at most until the deadline, without asking the database before there is news."""
    if done(checkout) or not call.wait_seconds:
        return checkout
    if not await call.hints.comes(news, deadline):
        return await CHECKOUT.of(call, checkout.id)  # a hint may be lost: look once more before saying that it is not over
    with call.hints.expect(str(checkout.id)) as more:
        return await awaited(call, await CHECKOUT.of(call, checkout.id), more, deadline, done)


async def read_awaited(call: Call, checkout_id: UUID, deadline: float, done: Done = is_over) -> Checkout:
    """A checkout that was there before: as it is, or as it is once done within the wait."""
    with call.hints.expect(str(checkout_id)) as news:
        return await awaited(call, await CHECKOUT.of(call, checkout_id), news, deadline, done)


def _deadline(call: Call) -> float:
    return asyncio.get_running_loop().time() + call.wait_seconds


def _payer(call: Call) -> Payer | None:
    """Who would pay; nobody that we know of if a tenant's machine buys for somebody."""
    who = call.principal
    if not who.is_shopper:
        return None
    return Payer(tenant_id=call.tenant_id, subject_id=who.subject, address=call.address, is_guest=who.is_guest)


def _as_resource(checkout: Checkout) -> Answer:
    """What a key remembers of a checkout: which. It lives on, so a replay shows it as it is by then."""
    return Answer(0, headers={"resource": str(checkout.id)})


def checkout_reply(call: Call, checkout: Checkout, **headers: str) -> Response:
    """200 once final, 202 before."""
    location = f"/v1/checkouts/{checkout.id}"
    status = 200 if checkout.is_final else 202
    return reply(status, checkout_model(checkout), Location=location, ETag=f'"{checkout.version}"', **call.applied, **headers)


@ROUTES.post("/v1/checkouts", status_code=202, response_model=CheckoutModel, responses={200: {"model": CheckoutModel}})
@guard("checkouts:write", idempotent=True, costly=True, buys=True)
async def start_checkout(call: Caller, body: NewCheckout) -> Response:
    """Buy a cart. 202 while it is under way; the outcome is the checkout's state and reason.

    Asked again under another key, a checkout that is under way is the same, and takes another `email`.
    """
    request = body.model_dump(mode="json", exclude={"email"}, exclude_defaults=True)
    checkout_id, deadline, terms = new_id(), _deadline(call), call.service.shared(Terms)
    command = handlers.StartCheckout(
        checkout_id=checkout_id,
        cart_id=body.cart_id,
        subject_id=call.principal.subject,
        is_guest=call.principal.is_guest,
        method=body.payment.method or "",
        confirmation=body.payment.confirming,
        email=body.email,
        shipping_method=body.shipping_method,
        shipping_address=address_of(body.shipping_address),
        billing_address=address_of(body.billing_address),
        accept_price_changes=body.accept_price_changes,
        body_digest=hashlib.sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).hexdigest(),
        ttl_seconds=terms.seconds,
        payer=_payer(call),
        return_url=body.payment.return_url,
        own_origins=terms.own_origins,
    )
    with call.hints.expect(str(checkout_id)) as news:
        started: Any = await call.execute_once(command, _as_resource)
        if isinstance(started, Checkout) and started.id == checkout_id:
            return checkout_reply(call, await awaited(call, started, news, deadline, is_over_or_up_to_payer))
    return await _shown(call, started, deadline, is_over_or_up_to_payer)


async def _shown(call: Call, answer: Checkout | Replayed, deadline: float, done: Done) -> Response:
    """The checkout that a command, or the same one before it, was about."""
    if isinstance(answer, Replayed):
        checkout = await read_awaited(call, UUID(answer.answer.headers["resource"]), deadline, done)
        return checkout_reply(call, checkout, Idempotent_Replayed="true")
    return checkout_reply(call, await read_awaited(call, answer.id, deadline, done))


@ROUTES.get("/v1/checkouts/{checkout_id}", response_model=CheckoutModel)
@guard("checkouts:read", sees=CHECKOUT)
async def read_checkout(call: Caller, checkout_id: UUID) -> Response:
    """One checkout; with `Prefer: wait`, once it is final."""
    checkout = await read_awaited(call, checkout_id, _deadline(call))
    return reply_unless_known(call, lambda: checkout_model(checkout), checkout.version, **call.applied)


@ROUTES.post(
    "/v1/checkouts/{checkout_id}/cancel", status_code=202, response_model=CheckoutModel, responses={200: {"model": CheckoutModel}}
)
@guard("checkouts:write", idempotent=True, sees=CHECKOUT, goes_on=True)
async def cancel_checkout(call: Caller, checkout_id: UUID) -> Response:
    """Do not buy it after all. 202 until payments has let go of the money; 409 when it is too late."""
    deadline = _deadline(call)
    command = handlers.CancelCheckout(checkout_id=checkout_id, caller=call.viewer)
    return await _shown(call, await call.execute_once(command, _as_resource), deadline, is_over)


@ROUTES.post(
    "/v1/checkouts/{checkout_id}/resume", status_code=202, response_model=CheckoutModel, responses={200: {"model": CheckoutModel}}
)
@guard("checkouts:write", idempotent=True, sees=CHECKOUT)
async def resume_checkout(call: Caller, checkout_id: UUID, body: Resumption | None = None) -> Response:
    """Go on: the payer did what was required, or says how to pay what is reserved. 409 when it is over."""
    deadline, payment = _deadline(call), body.payment if body else None
    command = handlers.ResumeCheckout(
        checkout_id=checkout_id,
        caller=call.viewer,
        method=(payment.method or "") if payment else "",
        confirmation=payment.confirming if payment else "server",
        payer=_payer(call),
        return_url=payment.return_url if payment else None,
        own_origins=call.service.shared(Terms).own_origins,
    )
    return await _shown(call, await call.execute_once(command, _as_resource), deadline, is_over)
