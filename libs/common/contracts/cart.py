"""Events of the cart service (`cart.v1`)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

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
class Discount:
    """An amount the cart takes off, and why."""

    code: Text
    amount_minor: Minor


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
    """When the first of its prices is over, after which none may be charged. Absent: they have no end."""


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
