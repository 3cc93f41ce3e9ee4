"""The lines of a cart: so many of a product, at the price of a moment."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import orjson

from libs.common.contracts.external import is_sku
from libs.common.errors import RejectedError
from services.cart.domain.product import Price, Product

MAX_QUANTITY = 1_000_000
MAX_TOLD_BYTES = 850_000
"""Of a cart's lines in an event, which takes 900,000 with all that is around them: what is accepted can be frozen and bought."""
AMOUNTS_BYTES = 230
"""Of a line in an event, at most, beside its texts: the names of its members, and numbers as long as they may be."""


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


def repriced_line(line: Line, product: Product | None, currency: str, now: datetime) -> Line:
    """The line at the price of this moment; as it is where there is none."""
    price = product.price_in(currency, now) if product else None
    if price is None:
        return line
    was_minor = _if_other(line.put_minor, price)
    return replace(line, unit_minor=price.unit_minor, price_sequence=price.sequence, was_minor=was_minor)


def told_bytes(lines: Sequence[Line]) -> int:
    """What the lines take in an event, at most: `cart.frozen` has their categories, `order.confirmed` more amounts."""
    return sum(AMOUNTS_BYTES + len(orjson.dumps((line.sku, line.name, line.category))) for line in lines)
