"""Products, as the catalogue tells of them."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import ClassVar

from libs.common.contracts.catalog import PriceChanged, ProductPublished, ProductWithdrawn
from libs.common.contracts.external import MAX_STEP, is_next
from libs.common.decision import Aggregate
from libs.common.errors import UnbelievableError

MAX_TOTAL_MINOR = 9_000_000_000_000_000
"""What an event can say (`contracts.Minor`): a dearer cart could be frozen, and never be heard of."""


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
