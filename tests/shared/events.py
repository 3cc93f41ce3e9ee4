"""Events as their publishers write them. What a test does not say of one is as usual, and whom it is about is anybody."""

from typing import Any
from uuid import UUID, uuid4

from libs.common.clock import now
from libs.common.contracts.cart import CartFrozen, Discount, FrozenLine
from libs.common.contracts.checkout import OrderConfirmed, PaymentRequested, RefundRequested, Totals
from libs.common.contracts.identity import TenantUpdated
from libs.common.contracts.inventory import StockCounted
from libs.common.contracts.payments import PaymentAuthorized, PaymentCaptured
from services.checkout.domain.saga import Checkout

AMOUNT = 1_250


def tenant_updated(tenant_id: UUID, **members: Any) -> TenantUpdated:
    usual = {"version": 1, "slug": "t", "status": "active", "currency": "GBP", "country": "GB"}
    return TenantUpdated(tenant_id=tenant_id, **{**usual, **members})


def stock_counted(sku: str, quantity: int, location: str = "main") -> StockCounted:
    return StockCounted(sku=sku, location=location, quantity=quantity)


def frozen_line(sku: str, quantity: int, unit_minor: int, **members: Any) -> FrozenLine:
    usual = {"name": sku, "category": ""}
    total_minor = quantity * unit_minor
    return FrozenLine(sku=sku, quantity=quantity, unit_minor=unit_minor, total_minor=total_minor, **{**usual, **members})


def cart_frozen(*lines: FrozenLine, discount_minor: int = 0, **members: Any) -> CartFrozen:
    """A cart of these lines, and what it takes off their sum."""
    usual = {"cart_id": uuid4(), "checkout_id": uuid4(), "version": 2, "subject_id": uuid4(), "currency": "GBP"}
    discounts = (Discount(code="less", amount_minor=discount_minor),) if discount_minor else ()
    total_minor = sum(line.total_minor for line in lines) - discount_minor
    return CartFrozen(**{**usual, "lines": lines, "discounts": discounts, "total_minor": total_minor, **members})


def cart_frozen_for(checkout: Checkout, *lines: FrozenLine, discount_minor: int = 0) -> CartFrozen:
    """The cart's answer to a checkout."""
    whose = {"cart_id": checkout.cart_id, "checkout_id": checkout.id, "subject_id": checkout.subject_id}
    return cart_frozen(*lines, discount_minor=discount_minor, **whose)


def payment_requested(method: str = "pm_card_visa", **members: Any) -> PaymentRequested:
    whose = {"checkout_id": uuid4(), "payment_id": uuid4(), "order_id": uuid4(), "subject_id": uuid4()}
    usual = {"amount_minor": AMOUNT, "currency": "GBP", "capture": "on-confirmation", "quote_hash": "0" * 64}
    return PaymentRequested(**{**whose, **usual, "method": method, **members})


def payment_authorized(checkout: Checkout, **members: Any) -> PaymentAuthorized:
    """As much as the checkout asked for is held."""
    usual = {"amount_minor": checkout.total_minor or 0, "currency": "GBP"}
    return PaymentAuthorized(payment_id=checkout.payment_id, checkout_id=checkout.id, **{**usual, **members})


def payment_captured(checkout: Checkout) -> PaymentCaptured:
    """All of it is taken."""
    total_minor = checkout.total_minor or 0
    whose = {"payment_id": checkout.payment_id, "checkout_id": checkout.id, "order_id": checkout.order_id}
    return PaymentCaptured(amount_minor=total_minor, captured_minor=total_minor, **whose)


def totals(total_minor: int) -> Totals:
    """Of an order without discount, shipping or tax."""
    return Totals(subtotal_minor=total_minor, discount_minor=0, shipping_minor=0, tax_minor=0, total_minor=total_minor)


def order_confirmed(total_minor: int, **members: Any) -> OrderConfirmed:
    whose = {name: uuid4() for name in ("order_id", "checkout_id", "cart_id", "payment_id", "subject_id")}
    usual = {"number": 1, "currency": "GBP", "lines": (), "totals": totals(total_minor), "placed_at": now()}
    return OrderConfirmed(**{**whose, **usual, **members})


def order_confirmed_for(asked: PaymentRequested) -> OrderConfirmed:
    """The order that this money was asked for."""
    whose = {name: getattr(asked, name) for name in ("order_id", "checkout_id", "payment_id", "subject_id", "currency")}
    return order_confirmed(asked.amount_minor, **whose)


def refund_requested(amount_minor: int, **members: Any) -> RefundRequested:
    whose = {name: uuid4() for name in ("refund_id", "payment_id", "checkout_id", "order_id")}
    return RefundRequested(amount_minor=amount_minor, **{**whose, "currency": "GBP", "reason": "returned", **members})
