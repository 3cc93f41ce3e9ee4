"""Carts: what may happen to one, decided without I/O."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from libs.common.contracts.cart import CartFrozen, CartOrdered, CartReopened, FreezeRefusal, FrozenLine
from libs.common.decision import Aggregate, absent
from libs.common.errors import ConflictError, NotFoundError, RejectedError, StaleError
from services.cart.domain import promotion as promotions
from services.cart.domain.line import MAX_TOLD_BYTES, Line, repriced_line, told_bytes
from services.cart.domain.product import MAX_TOTAL_MINOR, Product
from services.cart.domain.promotion import MAX_COUPONS, Considered, Given, Promotion

MAX_LINES = 2_000
CART_LIFETIME = timedelta(days=30)


class CartState(StrEnum):
    """Where a cart stands."""

    OPEN = "open"
    FROZEN = "frozen"
    ORDERED = "ordered"
    MERGED = "merged"
    EXPIRED = "expired"


TRANSITIONS: dict[CartState, frozenset[CartState]] = {
    CartState.OPEN: frozenset({CartState.FROZEN, CartState.MERGED, CartState.EXPIRED}),
    CartState.FROZEN: frozenset({CartState.OPEN, CartState.ORDERED}),
    CartState.ORDERED: frozenset(),
    CartState.MERGED: frozenset(),
    CartState.EXPIRED: frozenset(),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cart(Aggregate):
    """A shopper's cart. A SKU stands on one line at most."""

    OWNER: ClassVar[str | None] = "subject_id"
    id: UUID
    subject_id: UUID
    state: CartState
    currency: str
    lines: tuple[Line, ...] = ()
    checkout_id: UUID | None = None
    checkout_attempt: int = 0
    """The number of the last checkout that it was given to, among its shopper's checkouts of it."""
    order_id: UUID | None = None
    coupons: tuple[str, ...] = ()
    """The codes that were entered, whether anything is given for them at present or not."""
    discounts: tuple[Given, ...] = ()
    """What is taken off: when it was last changed or frozen, and anew whenever an open one is read or frozen."""
    put_discount_minor: int = 0
    """What was taken off when its shopper last changed it: what they know of."""
    expires_at: datetime

    @property
    def subtotal_minor(self) -> int:
        """What its goods cost."""
        return sum(line.total_minor for line in self.lines)

    @property
    def discount_minor(self) -> int:
        """What is taken off that."""
        return sum(each.amount_minor for each in self.discounts)

    @property
    def total_minor(self) -> int:
        """What the cart costs before shipping and tax."""
        return self.subtotal_minor - self.discount_minor

    @property
    def discount_was_minor(self) -> int | None:
        """What its shopper knows to be taken off, while it is less and the cart dearer for it. Prices tell of themselves."""
        known_minor = sum(line.put_minor * line.quantity for line in self.lines) - self.put_discount_minor
        is_less = self.discount_minor < self.put_discount_minor and self.total_minor > known_minor
        return self.put_discount_minor if is_less else None

    def line_discounts(self) -> dict[str, int]:
        """What is taken off each line, by SKU."""
        found: dict[str, int] = {}
        for part in (part for each in self.discounts for part in each.lines):
            found[part.sku] = found.get(part.sku, 0) + part.amount_minor
        return found

    def line(self, sku: str) -> Line | None:
        """The line of this SKU."""
        return next((line for line in self.lines if line.sku == sku), None)


def move(cart: Cart, to: CartState) -> Cart:
    """Change state, if the table says so. Raises ConflictError otherwise."""
    if to not in TRANSITIONS[cart.state]:
        raise ConflictError("cart-state", f"a cart that is {cart.state} cannot become {to}", state=str(cart.state))
    return replace(cart, state=to)


def create(tenant_id: UUID, cart_id: UUID, subject_id: UUID, currency: str, now: datetime) -> Cart:
    """A new, empty cart."""
    return Cart(
        tenant_id=tenant_id,
        id=cart_id,
        subject_id=subject_id,
        state=CartState.OPEN,
        currency=currency,
        expires_at=now + CART_LIFETIME,
    )


def claim(cart: Cart | None, claimer: UUID, former: UUID | None) -> Cart:
    """The cart of somebody who was a guest when they filled it. One's own already: unchanged. Anybody else's is not there."""
    if cart is None or cart.subject_id not in {claimer, former}:
        raise absent(Cart)
    if cart.subject_id == claimer:
        return cart
    demand_changeable(cart, None)
    return replace(cart, subject_id=claimer)


def demand_changeable(cart: Cart, if_match: int | None) -> None:
    """Refuse unless the cart may still change on the version the caller knows. Goes last: rules are told of before."""
    if if_match is not None and if_match != cart.version:
        raise StaleError("stale-version", f"the cart is at version {cart.version}", version=cart.version)
    if cart.state is not CartState.OPEN:
        checkout = {"checkout_id": str(cart.checkout_id)} if cart.checkout_id else {}
        raise ConflictError("cart-not-open", f"the cart is {cart.state} and cannot change", state=str(cart.state), **checkout)


def repriced(cart: Cart, products: Mapping[str, Product], now: datetime) -> Cart:
    """The cart at the prices of this moment. A line of what is not sold at present stays as it is, and keeps it from sale."""
    return replace(cart, lines=tuple(repriced_line(line, products.get(line.sku), cart.currency, now) for line in cart.lines))


def considered(cart: Cart, offered: Iterable[Promotion], now: datetime) -> list[Considered]:
    """What becomes of each of these promotions with the cart's lines as they are."""
    return promotions.judge(cart.lines, cart.currency, offered, cart.coupons, now)


def discounted(cart: Cart, offered: Iterable[Promotion], now: datetime) -> Cart:
    """The cart with what it is given of these promotions at this moment."""
    return replace(cart, discounts=promotions.given(considered(cart, offered, now)))


def put(cart: Cart, offered: Iterable[Promotion], now: datetime) -> Cart:
    """A cart that its shopper has just changed: what is taken off, they are told of now."""
    shown = discounted(cart, offered, now)
    return replace(shown, put_discount_minor=shown.discount_minor)


def put_coupon(cart: Cart, promotion: Promotion | None) -> Cart:
    """Enter a coupon. Whether anything is given for it, and why not, is another question: a coupon may wait for its goods."""
    if promotion is None or promotion.is_gone or not promotion.requires_coupon:
        raise RejectedError("coupon-unknown", "there is no such coupon")
    if promotion.code in cart.coupons:
        return cart
    if len(cart.coupons) >= MAX_COUPONS:
        raise RejectedError("too-many-coupons", f"a cart has at most {MAX_COUPONS} coupons")
    return replace(cart, coupons=(*cart.coupons, promotion.code))


def remove_coupon(cart: Cart, code: str) -> Cart:
    """Take a coupon away. Raises NotFoundError when it is not there."""
    kept = tuple(each for each in cart.coupons if each.casefold() != code.casefold())
    if kept == cart.coupons:
        raise NotFoundError("coupon-not-found", "the cart has no such coupon")
    return replace(cart, coupons=kept)


def valid_until(cart: Cart, products: Iterable[Product], offered: Iterable[Promotion]) -> datetime | None:
    """When the first price of these products, or the first of the cart's discounts, is over. None: they are for good."""
    prices = [product.prices.get(cart.currency) for product in products]
    applied = {each.promotion for each in cart.discounts}
    ends = [price.valid_until for price in prices if price] + [each.valid_until for each in offered if each.code in applied]
    return min((end for end in ends if end), default=None)


def put_line(cart: Cart, line: Line) -> Cart:
    """Put a line in the place of the one with the same SKU, or at the end."""
    if cart.line(line.sku):
        return replace_lines(cart, [line if each.sku == line.sku else each for each in cart.lines])
    return replace_lines(cart, [*cart.lines, line])


def replace_lines(cart: Cart, lines: Sequence[Line]) -> Cart:
    """Put these lines in the place of all."""
    if len(lines) > MAX_LINES:
        raise RejectedError("too-many-lines", f"a cart has at most {MAX_LINES} lines")
    if len({line.sku for line in lines}) != len(lines):
        raise RejectedError("duplicate-sku", "a SKU stands on one line; add the quantities up")
    if told_bytes(lines) > MAX_TOLD_BYTES:
        detail = f"the lines' SKUs, names and categories are too much for one order: {MAX_TOLD_BYTES} bytes with their amounts"
        raise RejectedError("cart-too-large", detail)
    if sum(line.total_minor for line in lines) > MAX_TOTAL_MINOR:
        raise RejectedError("total-too-large", f"a cart comes to {MAX_TOTAL_MINOR} minor units at most")
    return replace(cart, lines=tuple(lines))


def remove_line(cart: Cart, sku: str) -> Cart:
    """Take the line of this SKU away. Raises NotFoundError when there is none."""
    if cart.line(sku) is None:
        raise NotFoundError("line-not-found", "the cart has no line of this SKU")
    return replace(cart, lines=tuple(line for line in cart.lines if line.sku != sku))


def freeze_refusal(cart: Cart | None, subject_id: UUID, unavailable: bool, attempt: int = 0) -> FreezeRefusal | None:
    """Why a checkout may not have this cart, if so. Another's cart is as absent as none."""
    if cart is None or cart.subject_id != subject_id:
        return "cart-not-found"
    if not _is_to_be_had(cart, attempt):
        return "cart-unavailable"
    if not cart.lines:
        return "cart-empty"
    if told_bytes(cart.lines) > MAX_TOLD_BYTES or cart.subtotal_minor > MAX_TOTAL_MINOR:
        return "cart-unavailable"  # filled before there was a limit, or before its prices rose
    return "product-unavailable" if unavailable else None


def _is_to_be_had(cart: Cart, attempt: int) -> bool:
    """Whether it is open, or is with an earlier checkout: one that has a successor came to nothing.

    Checkouts are told of in any order, so the successor may be heard of before the end, and before what it succeeds.
    """
    if attempt and attempt < cart.checkout_attempt:
        return False
    return CartState.FROZEN in TRANSITIONS[cart.state] or (cart.state is CartState.FROZEN and attempt > cart.checkout_attempt)


def release(cart: Cart) -> tuple[Cart, Sequence[CartReopened]]:
    """Take it from the checkout that still has it, if one does: it is wanted by the next."""
    if cart.state is not CartState.FROZEN or cart.checkout_id is None:
        return cart, ()
    opened, event = reopen(cart, cart.checkout_id)
    return opened, (event,)


def freeze(cart: Cart, checkout_id: UUID, attempt: int = 0, until: datetime | None = None) -> tuple[Cart, CartFrozen]:
    """Give the cart to a checkout, at the prices and discounts it has (`repriced`, `discounted`), which are over then."""
    frozen = replace(move(cart, CartState.FROZEN), checkout_id=checkout_id, checkout_attempt=max(attempt, cart.checkout_attempt))
    return frozen, CartFrozen(
        cart_id=cart.id,
        checkout_id=checkout_id,
        version=cart.version + 1,
        subject_id=cart.subject_id,
        currency=cart.currency,
        lines=tuple(
            FrozenLine(
                sku=line.sku,
                name=line.name,
                category=line.category,
                quantity=line.quantity,
                unit_minor=line.unit_minor,
                total_minor=line.total_minor,
                weight_grams=line.weight_grams,
                price_was_minor=line.was_minor,
            )
            for line in cart.lines
        ),
        discounts=promotions.told(cart.discounts, cart.lines),
        total_minor=cart.total_minor,
        prices_valid_until=until,
        discount_was_minor=cart.discount_was_minor,
    )


def reopen(cart: Cart, checkout_id: UUID) -> tuple[Cart, CartReopened]:
    """Give the cart back to its shopper."""
    return replace(move(cart, CartState.OPEN), checkout_id=None), CartReopened(cart_id=cart.id, checkout_id=checkout_id)


def order(cart: Cart, order_id: UUID) -> tuple[Cart, CartOrdered]:
    """The cart has become an order."""
    return replace(move(cart, CartState.ORDERED), order_id=order_id), CartOrdered(cart_id=cart.id, order_id=order_id)
