"""Carts and the products in them: what may happen, decided without I/O."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

import orjson

from libs.common.contracts.cart import CartFrozen, CartOrdered, CartReopened, FreezeRefusal, FrozenLine
from libs.common.contracts.catalog import PriceChanged, ProductPublished, ProductWithdrawn
from libs.common.contracts.external import MAX_STEP, is_next, is_sku
from libs.common.decision import Aggregate, absent
from libs.common.errors import ConflictError, NotFoundError, RejectedError, StaleError, UnbelievableError

MAX_QUANTITY = 1_000_000
MAX_LINES = 2_000
MAX_TOTAL_MINOR = 9_000_000_000_000_000
"""What an event can say (`contracts.Minor`): a dearer cart could be frozen, and never be heard of."""
MAX_TOLD_BYTES = 850_000
"""Of a cart's lines in an event, which takes 900,000 with all that is around them: what is accepted can be frozen and bought."""
AMOUNTS_BYTES = 230
"""Of a line in an event, at most, beside its texts: the names of its members, and numbers as long as they may be."""
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
class Price:
    """A product's price in one currency, as of one event of the catalogue."""

    unit_minor: int
    sequence: int
    valid_from: datetime | None = None
    valid_until: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        """Whether it may be charged at this moment. A time without an offset is no moment, and what no cart can hold no price."""
        is_naive = any(bound is not None and bound.tzinfo is None for bound in (self.valid_from, self.valid_until))
        if is_naive or not 0 <= self.unit_minor <= MAX_TOTAL_MINOR:
            return False
        return (self.valid_from is None or self.valid_from <= now) and (self.valid_until is None or now < self.valid_until)


@dataclass(frozen=True, kw_only=True, slots=True)
class Product(Aggregate):
    """A product as the catalogue last described it. Each fact remembers the event it came from, so order is no matter."""

    KEY: ClassVar[str] = "sku"
    OWNER: ClassVar[str | None] = None
    sku: str
    name: str = ""
    category: str = ""
    weight_grams: int | None = None
    prices: dict[str, Price] = field(default_factory=dict)
    described_sequence: int = 0
    withdrawn_sequence: int = 0

    @property
    def withdrawn(self) -> bool:
        """Withdrawn after it was last published."""
        return self.withdrawn_sequence > self.described_sequence

    @property
    def catalog_sequence(self) -> int:
        """The newest event of the catalogue that is in it."""
        return max(self.described_sequence, self.withdrawn_sequence, *(price.sequence for price in self.prices.values()), 0)

    def price_in(self, currency: str, now: datetime) -> Price | None:
        """What it costs now in this currency, if it may be bought at all."""
        price = self.prices.get(currency)
        sellable = self.described_sequence > 0 and not self.withdrawn
        return price if sellable and price is not None and price.is_valid(now) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A quantity of one product, at the price it has: when it was put, and anew whenever the cart is read or frozen."""

    sku: str
    name: str
    category: str
    quantity: int
    unit_minor: int
    price_sequence: int
    was_minor: int | None = None
    """The price it was put at, while that is another: what its shopper knows of, until they accept a higher one."""
    weight_grams: int | None = None

    @property
    def put_minor(self) -> int:
        """The price it was put at."""
        return self.unit_minor if self.was_minor is None else self.was_minor

    @property
    def total_minor(self) -> int:
        """What the line costs."""
        return self.unit_minor * self.quantity


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
    expires_at: datetime

    @property
    def total_minor(self) -> int:
        """What the cart costs before shipping and tax."""
        return sum(line.total_minor for line in self.lines)

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


def priced_line(
    product: Product | None, sku: str, quantity: int, currency: str, now: datetime, known: Line | None = None
) -> Line:
    """A line at the price of this moment. Raises RejectedError for what cannot be sold.

    `known` is the line it replaces. Another quantity is no word on a price that rose since that was put; a fall is taken.
    """
    if not is_sku(sku):
        detail = "a SKU is 1 to 64 characters of any Unicode but controls, in NFC, without white space around it"
        raise RejectedError("bad-sku", detail, sku=sku)
    if not 1 <= quantity <= MAX_QUANTITY:
        raise RejectedError("bad-quantity", f"a quantity is 1 to {MAX_QUANTITY}", sku=sku)
    price = product.price_in(currency, now) if product else None
    if product is None or price is None:
        raise RejectedError("product-unavailable", f"{sku!r} is not sold in {currency} at present", sku=sku)
    put_minor = price.unit_minor if known is None else min(known.put_minor, price.unit_minor)
    return Line(
        sku=sku,
        name=product.name,
        category=product.category,
        quantity=quantity,
        unit_minor=price.unit_minor,
        price_sequence=price.sequence,
        was_minor=_if_other(put_minor, price),
        weight_grams=product.weight_grams,
    )


def _if_other(put_minor: int, price: Price) -> int | None:
    return None if put_minor == price.unit_minor else put_minor


def repriced(cart: Cart, products: Mapping[str, Product], now: datetime) -> Cart:
    """The cart at the prices of this moment. A line of what is not sold at present stays as it is, and keeps it from sale."""
    return replace(cart, lines=tuple(_repriced(line, products.get(line.sku), cart.currency, now) for line in cart.lines))


def _repriced(line: Line, product: Product | None, currency: str, now: datetime) -> Line:
    price = product.price_in(currency, now) if product else None
    if price is None:
        return line
    was_minor = _if_other(line.put_minor, price)
    return replace(line, unit_minor=price.unit_minor, price_sequence=price.sequence, was_minor=was_minor)


def prices_valid_until(cart: Cart, products: Iterable[Product]) -> datetime | None:
    """When the first price of these products in the cart's currency is over. None: they are for good."""
    prices = [product.prices.get(cart.currency) for product in products]
    return min((price.valid_until for price in prices if price and price.valid_until), default=None)


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


def told_bytes(lines: Sequence[Line]) -> int:
    """What the lines take in an event, at most: `cart.frozen` has their categories, `order.confirmed` more amounts."""
    return sum(AMOUNTS_BYTES + len(orjson.dumps((line.sku, line.name, line.category))) for line in lines)


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
    if told_bytes(cart.lines) > MAX_TOLD_BYTES or cart.total_minor > MAX_TOTAL_MINOR:
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


def freeze(cart: Cart, checkout_id: UUID, attempt: int = 0, valid_until: datetime | None = None) -> tuple[Cart, CartFrozen]:
    """Give the cart to a checkout, at the prices it has (`repriced`), which are over at that moment."""
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
        discounts=(),
        total_minor=cart.total_minor,
        prices_valid_until=valid_until,
    )


def reopen(cart: Cart, checkout_id: UUID) -> tuple[Cart, CartReopened]:
    """Give the cart back to its shopper."""
    return replace(move(cart, CartState.OPEN), checkout_id=None), CartReopened(cart_id=cart.id, checkout_id=checkout_id)


def order(cart: Cart, order_id: UUID) -> tuple[Cart, CartOrdered]:
    """The cart has become an order."""
    return replace(move(cart, CartState.ORDERED), order_id=order_id), CartOrdered(cart_id=cart.id, order_id=order_id)


def demand_next(product: Product, sequence: int) -> None:
    """Refuse what counts so far ahead that nothing after it would be believed. Raises UnbelievableError."""
    if not is_next(sequence, product.catalog_sequence):
        detail = f"/ce_sequence: {product.sku} is at {product.catalog_sequence}, and {sequence} is more than {MAX_STEP} above it"
        raise UnbelievableError("sequence-leap", detail)


def publish_product(product: Product, fact: ProductPublished, sequence: int) -> Product:
    """Take a description, unless a newer one is known."""
    if sequence <= product.described_sequence:
        return product
    return replace(product, name=fact.name, category=fact.category, weight_grams=fact.weight_grams, described_sequence=sequence)


def change_price(product: Product, fact: PriceChanged, sequence: int) -> Product:
    """Take a price, unless a newer one in its currency is known."""
    known = product.prices.get(fact.currency)
    if known is not None and sequence <= known.sequence:
        return product
    price = Price(unit_minor=fact.unit_minor, sequence=sequence, valid_from=fact.valid_from, valid_until=fact.valid_until)
    return replace(product, prices={**product.prices, fact.currency: price})


def withdraw_product(product: Product, _fact: ProductWithdrawn, sequence: int) -> Product:
    """Take it off sale; published again later, it is back."""
    return replace(product, withdrawn_sequence=max(sequence, product.withdrawn_sequence))
