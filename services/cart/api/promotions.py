"""HTTP in: promotions for a tenant's staff, coupons for shoppers, and why a cart is given what it is."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Final
from uuid import UUID

from fastapi import Path, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, field_validator

from libs.common.clock import rfc3339
from libs.common.contracts import Minor
from libs.common.contracts.external import NAMED, WRITTEN, Sku
from libs.common.http.members import Moment
from libs.common.http.paging import Limit, Page
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, reply
from libs.common.http.seeing import Sight, listed, of_the_tenant
from libs.common.money import CURRENCIES
from services.cart import domain, handlers, repository
from services.cart.api.carts import CART, fresh_reply, shown_with
from services.cart.api.models import Body, CartModel
from services.cart.domain import Cart, CartState, Outcome, Promotion, PromotionKind
from services.cart.domain.promotion import DETAILS, WHOLE, Considered
from services.cart.handlers import Written

ROUTES = Routes(Facing.CUSTOMERS)
PROMOTION = Sight(repository.PROMOTIONS, "code")
MOST_USES = 1_000_000_000

CodePath = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"), NAMED]
Words = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$", max_length=100), WRITTEN]
Category = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,500}$"), NAMED]
PERCENT = r"^\d{1,3}(\.\d{1,2})?$"

TENTH_OFF: Final[dict[str, JsonValue]] = {
    "name": "10 % off your first order",
    "kind": "percentage",
    "percent": "10",
    "requires_coupon": True,
}


class PromotionBody(Body):
    """What is taken off, of what, and when. Of several, the highest priority comes first, and each counts on what is left."""

    model_config = ConfigDict(json_schema_extra={"examples": [TENTH_OFF]})

    name: Annotated[Words, Field(description="What shoppers are told")]
    kind: PromotionKind
    percent: Annotated[str | None, Field(pattern=PERCENT, description="Of a percentage", examples=["10", "12.5"])] = None
    amount_minor: Annotated[
        Minor | None, Field(ge=1, description="Of an amount: off all that it is for, at most what that costs")
    ] = None
    currency: Annotated[
        str | None, Field(description="Of its amounts, and of the carts that it is for. Absent: any", examples=["GBP"])
    ] = None
    skus: Annotated[tuple[Sku, ...], Field(max_length=500, description="It is for these, or for `categories`; neither: all")] = ()
    categories: Annotated[tuple[Category, ...], Field(max_length=100)] = ()
    minimum_subtotal_minor: Annotated[Minor | None, Field(description="What all goods come to, at least")] = None
    valid_from: AwareDatetime | None = None
    valid_until: AwareDatetime | None = None
    requires_coupon: Annotated[bool, Field(description="Given to whoever enters its code; else to everybody")] = False
    max_uses: Annotated[
        int | None, Field(ge=1, le=MOST_USES, description="Carts in all that may be bought, or are being bought, with it")
    ] = None
    priority: Annotated[int, Field(ge=-1_000, le=1_000)] = 0
    exclusive: Annotated[bool, Field(description="Given alone: before all others, or not at all")] = False

    @field_validator("percent")
    @classmethod
    def _is_a_part(cls, percent: str | None) -> str | None:
        if percent is not None and not 0 < basis_points(percent) <= WHOLE:
            message = "a percentage is above 0 and at most 100"
            raise ValueError(message)
        return percent

    @field_validator("currency")
    @classmethod
    def _is_supported(cls, currency: str | None) -> str | None:
        if currency is not None and currency not in CURRENCIES:
            message = "not a currency this platform sells in"
            raise ValueError(message)
        return currency


class PromotionModel(BaseModel):
    """A promotion."""

    code: str
    name: str
    kind: PromotionKind
    percent: str | None
    amount_minor: int | None
    currency: str | None
    skus: list[str]
    categories: list[str]
    minimum_subtotal_minor: int | None
    valid_from: Moment | None
    valid_until: Moment | None
    requires_coupon: bool
    max_uses: int | None
    used_count: Annotated[int, Field(description="Of those that froze while it had a limit; given back ones no more")]
    priority: int
    exclusive: bool


class ConsideredModel(BaseModel):
    """One promotion as the cart met it."""

    promotion: str
    coupon: Annotated[str | None, Field(description="The coupon that it is, or would be, given for")]
    name: str | None
    applied: bool
    outcome: Outcome
    detail: str
    amount_minor: Annotated[int, Field(description="What it takes off")]


class ExplanationModel(BaseModel):
    """Why a cart is given what it is. One that is open, at this moment; one that is not, what it was given when it froze."""

    cart_id: UUID
    state: CartState
    currency: str
    subtotal_minor: int
    discount_minor: int
    total_minor: int
    promotions: Annotated[list[ConsideredModel], Field(description="In the order in which they are looked at")]


def basis_points(percent: str) -> int:
    """A percentage of at most two decimals, in hundredths of a percent."""
    return int(Decimal(percent) * 100)


def promotion_model(promotion: Promotion) -> PromotionModel:
    """A promotion for an answer."""
    percent = None if promotion.basis_points is None else f"{Decimal(promotion.basis_points).scaleb(-2).normalize():f}"
    return PromotionModel(
        code=promotion.code,
        name=promotion.name,
        kind=promotion.kind,
        percent=percent,
        amount_minor=promotion.amount_minor,
        currency=promotion.currency,
        skus=list(promotion.skus),
        categories=list(promotion.categories),
        minimum_subtotal_minor=promotion.minimum_subtotal_minor,
        valid_from=rfc3339(promotion.valid_from) if promotion.valid_from else None,
        valid_until=rfc3339(promotion.valid_until) if promotion.valid_until else None,
        requires_coupon=promotion.requires_coupon,
        max_uses=promotion.max_uses,
        used_count=promotion.used_count,
        priority=promotion.priority,
        exclusive=promotion.exclusive,
    )


def considered_model(considered: Considered) -> ConsideredModel:
    """What became of a promotion, for an answer."""
    return ConsideredModel(
        promotion=considered.code,
        coupon=considered.coupon,
        name=considered.name,
        applied=considered.outcome is Outcome.APPLIED,
        outcome=considered.outcome,
        detail=DETAILS[considered.outcome],
        amount_minor=considered.given.amount_minor if considered.given else 0,
    )


def _given(cart: Cart) -> list[Considered]:
    """What a cart that is not open was given, as it is known."""
    return [
        Considered(code=each.promotion, coupon=each.coupon, name=each.reason, outcome=Outcome.APPLIED, given=each)
        for each in cart.discounts
    ]


def _utc(moment: datetime | None) -> datetime | None:
    return moment.astimezone(UTC) if moment else None


def _wanted(call: Call, code: str, body: PromotionBody) -> Promotion:
    return Promotion(
        tenant_id=call.tenant_id,
        code=code,
        name=body.name,
        kind=body.kind,
        basis_points=basis_points(body.percent) if body.percent is not None else None,
        amount_minor=body.amount_minor,
        currency=body.currency,
        skus=tuple(dict.fromkeys(body.skus)),
        categories=tuple(dict.fromkeys(body.categories)),
        minimum_subtotal_minor=body.minimum_subtotal_minor,
        valid_from=_utc(body.valid_from),
        valid_until=_utc(body.valid_until),
        requires_coupon=body.requires_coupon,
        max_uses=body.max_uses,
        priority=body.priority,
        exclusive=body.exclusive,
    )


@ROUTES.put("/v1/promotions/{code}", response_model=PromotionModel, responses={201: {"model": PromotionModel}})
@guard("promotions:write", sees=of_the_tenant)
async def put_promotion(call: Caller, code: CodePath, body: PromotionBody) -> Response:
    """Give a promotion (201), or give it on other terms (200). Carts that are being bought keep what they were given."""
    promotion, is_new = await call.execute(handlers.PutPromotion(promotion=_wanted(call, code, body)))
    return reply(201 if is_new else 200, promotion_model(promotion), ETag=f'"{promotion.version}"')


@ROUTES.get("/v1/promotions", response_model=Page[PromotionModel])
@guard("promotions:write")
async def list_promotions(call: Caller, limit: Limit = 50, cursor: str | None = None) -> Response:
    """The tenant's promotions, by code. Shoppers do not see them: codes are for those who were given one."""
    return await listed(call, repository.PROMOTIONS, promotion_model, limit, cursor)


@ROUTES.get("/v1/promotions/{code}", response_model=PromotionModel)
@guard("promotions:write", sees=PROMOTION)
async def read_promotion(call: Caller, code: CodePath) -> Response:
    """One promotion, and how often it was used."""
    promotion = await PROMOTION.of(call, code)
    return reply(200, promotion_model(promotion), ETag=f'"{promotion.version}"')


@ROUTES.delete("/v1/promotions/{code}", status_code=204)
@guard("promotions:write", sees=of_the_tenant)
async def delete_promotion(call: Caller, code: CodePath) -> Response:
    """Give it no more. Carts that are being bought keep what they were given."""
    await call.execute(handlers.RemovePromotion(code=code))
    return reply(204, None)


@ROUTES.put("/v1/carts/{cart_id}/coupons/{code}", response_model=CartModel)
@guard("carts:write", sees=CART)
async def put_coupon(call: Caller, cart_id: UUID, code: CodePath) -> Response:
    """Enter a coupon, as written or in capitals. 422 `coupon-unknown`; one that does not apply stays, and is explained."""
    command = handlers.PutCoupon(cart_id=cart_id, caller=call.viewer, code=code, if_match=call.if_match())
    written: Written = await call.execute(command)
    return await fresh_reply(call, written.cart)


@ROUTES.delete("/v1/carts/{cart_id}/coupons/{code}", response_model=CartModel)
@guard("carts:write", sees=CART)
async def remove_coupon(call: Caller, cart_id: UUID, code: CodePath) -> Response:
    """Take a coupon away."""
    command = handlers.RemoveCoupon(cart_id=cart_id, caller=call.viewer, code=code, if_match=call.if_match())
    written: Written = await call.execute(command)
    return await fresh_reply(call, written.cart)


@ROUTES.get("/v1/carts/{cart_id}/explanation", response_model=ExplanationModel)
@guard("carts:read", sees=CART)
async def explain_cart(call: Caller, cart_id: UUID) -> Response:
    """Every promotion that was considered for a cart: that it is given, or why not."""
    async with call.transaction() as connection:
        stored = await CART.within(connection, call, cart_id)
        cart, promotions, at = await shown_with(connection, call, stored)
    considered = domain.considered(cart, promotions, at) if cart.state is CartState.OPEN else _given(cart)
    answer = ExplanationModel(
        cart_id=cart.id,
        state=cart.state,
        currency=cart.currency,
        subtotal_minor=cart.subtotal_minor,
        discount_minor=cart.discount_minor,
        total_minor=cart.total_minor,
        promotions=[considered_model(each) for each in considered],
    )
    return reply(200, answer)
