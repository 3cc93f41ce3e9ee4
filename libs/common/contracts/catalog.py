"""Events of the catalogue system (`catalog.v1`), which is not ours: its input is not to be trusted."""

from datetime import datetime

from libs.common.contracts import Currency, Event, Minor, Sku, Text, event


@event("catalog.v1", "product.published", aggregate="sku")
class ProductPublished(Event):
    """A product may be sold from now on, once it has a price."""

    sku: Sku
    name: Text
    category: Text
    weight_grams: int | None = None


@event("catalog.v1", "price.changed", aggregate="sku")
class PriceChanged(Event):
    """The product's price in one currency, whole: it replaces the one before."""

    sku: Sku
    currency: Currency
    unit_minor: Minor
    valid_from: datetime | None = None
    valid_until: datetime | None = None


@event("catalog.v1", "product.withdrawn", aggregate="sku")
class ProductWithdrawn(Event):
    """The product may not be sold any more."""

    sku: Sku
