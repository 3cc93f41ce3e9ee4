"""Events of the cart service (`cart.v1`)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from annotated_types import Ge, Le, MaxLen

from libs.common.contracts import Currency, Event, KeptSku, Minor, Quantity, Text, event


@dataclass(frozen=True, kw_only=True, slots=True)
class FrozenLine:
    """One line of a frozen cart, at the price of the moment it froze."""

    sku: KeptSku
    name: Text
    category: Text
    quantity: Quantity
    unit_minor: Minor
    total_minor: Minor
    weight_grams: int | None = None
    price_was_minor: Minor | None = None
    """The unit price at which the shopper put it in the cart. Absent: the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LineDiscount:
    """What a discount takes off one line."""

    line: Annotated[int, Ge(1)]
    """Its place among the cart's lines, from 1."""
    amount_minor: Minor


@dataclass(frozen=True, kw_only=True, slots=True)
class Discount:
    """An amount the cart takes off, and why."""

    code: Text
    """The promotion's."""
    amount_minor: Minor
    promotion: Text | None = None
    """The promotion's code, where the members below are told. Absent: nothing but the amount is."""
    coupon: Text | None = None
    """What the shopper entered for it. Absent: nothing needed to be."""
    reason: Text | None = None
    """What shoppers are told of it."""
    lines: tuple[LineDiscount, ...] = ()
    """Each line's part, which together are the amount. None: it is taken off the whole."""


@event("cart.v1", "cart.frozen", aggregate="cart_id")
class CartFrozen(Event):
    """The cart belongs to this checkout now and will not change while it does."""

    cart_id: UUID
    checkout_id: UUID
    version: int
    subject_id: UUID
    currency: Currency
    lines: tuple[FrozenLine, ...]
    discounts: tuple[Discount, ...]
    total_minor: Minor
    prices_valid_until: datetime | None = None
    """When the first of its prices or discounts is over, after which none may be charged. Absent: they have no end."""
    discount_was_minor: Minor | None = None
    """What was taken off when the shopper last changed it, if that was more and the cart has become dearer by it. Absent: no."""


FreezeRefusal = Literal["cart-not-found", "cart-empty", "cart-unavailable", "product-unavailable"]


@event("cart.v1", "cart.freeze-refused", aggregate="cart_id", or_by="checkout_id")
class CartFreezeRefused(Event):
    """The cart cannot be bought by this checkout. Of a cart that is not there, only this event exists."""

    cart_id: UUID
    checkout_id: UUID
    reason: FreezeRefusal


@event("cart.v1", "cart.reopened", aggregate="cart_id")
class CartReopened(Event):
    """The checkout came to nothing: the shopper may change the cart again."""

    cart_id: UUID
    checkout_id: UUID


@event("cart.v1", "cart.ordered", aggregate="cart_id")
class CartOrdered(Event):
    """The cart became an order. It will never change again."""

    cart_id: UUID
    order_id: UUID


PromotionCode = Annotated[str, MaxLen(64)]


@event("promotion.v1", "promotion.changed", aggregate="code")
class PromotionChanged(Event):
    """A promotion is there, on these terms, whatever they were before. Frozen carts keep what they were given."""

    code: PromotionCode
    name: Text
    kind: Literal["percentage", "amount"]
    basis_points: Annotated[int, Ge(1), Le(10_000)] | None = None
    """Of a percentage: hundredths of a percent."""
    amount_minor: Minor | None = None
    currency: Currency | None = None
    """Of the amounts, and of the carts that it is for. Absent: of any."""
    skus: tuple[KeptSku, ...] = ()
    categories: tuple[Text, ...] = ()
    """It is for lines of these SKUs or categories. Both empty: for all."""
    minimum_subtotal_minor: Minor | None = None
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    requires_coupon: bool = False
    max_uses: int | None = None
    priority: int = 0
    exclusive: bool = False


@event("promotion.v1", "promotion.removed", aggregate="code")
class PromotionRemoved(Event):
    """The promotion is given no more."""

    code: PromotionCode


@event("cart.v1", "tenant.provisioned", aggregate="tenant_id")
class TenantProvisioned(Event):
    """The cart service can serve this tenant."""

    tenant_id: UUID
    service: Literal["cart"]
    tenant_version: int


@event("cart.v1", "tenant.erased", aggregate="tenant_id")
class TenantErased(Event):
    """The cart service has nothing of this tenant any more. The digest is that of its export, of what was deleted."""

    tenant_id: UUID
    service: Literal["cart"]
    tenant_version: int
    row_count: int
    sha256: str
