"""What several parts of this API accept and answer with."""

from collections.abc import Mapping
from typing import Annotated
from uuid import UUID

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from libs.common.clock import rfc3339
from libs.common.contracts.external import Sku
from libs.common.http.members import Moment
from services.cart.domain import MAX_LINES, MAX_QUANTITY, Availability, Cart, CartState, Given, Line

Quantity = Annotated[int, Field(ge=1, le=MAX_QUANTITY, strict=True)]
SkuPath = Annotated[Sku, Path()]


class Body(BaseModel):
    """A request's body: what nobody knows is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NewCart(Body):
    """A cart to be made."""

    currency: str | None = None


class LineQuantity(Body):
    """How many of the SKU in the path."""

    quantity: Quantity


class NewLine(Body):
    """How many of which SKU."""

    sku: Sku
    quantity: Quantity


class NewLines(Body):
    """Every line of a cart."""

    lines: Annotated[list[NewLine], Field(max_length=MAX_LINES)]


class LineModel(BaseModel):
    """A line as clients see it."""

    sku: str
    name: str
    quantity: int
    unit_minor: int
    price_was_minor: Annotated[int | None, Field(description="What one cost when it was put in, while that is another price")]
    discount_minor: Annotated[int, Field(description="Its part of all that is taken off")]
    total_minor: Annotated[int, Field(description="Unit price times quantity: before discount")]
    price_sequence: int
    availability: Annotated[Availability, Field(description="How it is to be had, roughly: a hint, and no promise")]


class PartModel(BaseModel):
    """What a discount takes off one line."""

    sku: str
    amount_minor: int


class DiscountModel(BaseModel):
    """What one promotion takes off."""

    promotion: str
    coupon: Annotated[str | None, Field(description="The coupon that it is given for")]
    amount_minor: int
    lines: Annotated[list[PartModel], Field(description="Each line's part, together the amount")]
    reason: Annotated[str, Field(description="What shoppers are told of it")]


class CartModel(BaseModel):
    """A cart as clients see it."""

    id: UUID
    state: CartState
    version: int
    currency: str
    lines: list[LineModel]
    coupons: Annotated[
        list[str], Field(description="Those that were entered; what becomes of each, `/v1/carts/{cart_id}/explanation` says")
    ]
    discounts: list[DiscountModel]
    subtotal_minor: int
    discount_minor: int
    discount_was_minor: Annotated[
        int | None, Field(description="What was taken off when it was last changed, while that is more and it has become dearer")
    ]
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


def line_model(line: Line, discount_minor: int = 0, availability: Availability | None = None) -> LineModel:
    """A line for an answer."""
    return LineModel(
        sku=line.sku,
        name=line.name,
        quantity=line.quantity,
        unit_minor=line.unit_minor,
        price_was_minor=line.was_minor,
        discount_minor=discount_minor,
        total_minor=line.total_minor,
        price_sequence=line.price_sequence,
        availability=availability or Availability.UNKNOWN,
    )


def discount_model(given: Given) -> DiscountModel:
    """A discount for an answer."""
    return DiscountModel(
        promotion=given.promotion,
        coupon=given.coupon,
        amount_minor=given.amount_minor,
        lines=[PartModel(sku=part.sku, amount_minor=part.amount_minor) for part in given.lines],
        reason=given.reason,
    )


def cart_model(cart: Cart, availability: Mapping[str, Availability]) -> CartModel:
    """A cart for an answer, with what is known of how its goods are to be had."""
    discounts = cart.line_discounts()
    return CartModel(
        id=cart.id,
        state=cart.state,
        version=cart.version,
        currency=cart.currency,
        lines=[line_model(line, discounts.get(line.sku, 0), availability.get(line.sku)) for line in cart.lines],
        coupons=list(cart.coupons),
        discounts=[discount_model(each) for each in cart.discounts],
        subtotal_minor=cart.subtotal_minor,
        discount_minor=cart.discount_minor,
        discount_was_minor=cart.discount_was_minor,
        total_minor=cart.total_minor,
        checkout_id=cart.checkout_id,
        order_id=cart.order_id,
        expires_at=rfc3339(cart.expires_at),
    )
