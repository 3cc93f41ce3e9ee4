"""Events of the catalogue system (`catalog.v1`), which is not ours: its input is not to be trusted."""

from libs.common.contracts import Event, event
from libs.common.contracts.external import Count, Currency, Line, Minor, Moment, Sku


@event("catalog.v1", "product.published", aggregate="sku")
class ProductPublished(Event):
    """A product may be sold from now on, once it has a price."""

    sku: Sku
    name: Line
    category: Line
    weight_grams: Count | None = None


@event("catalog.v1", "price.changed", aggregate="sku")
class PriceChanged(Event):
    """The product's price in one currency, whole: it replaces the one before."""

    sku: Sku
    currency: Currency
    unit_minor: Minor
    valid_from: Moment | None = None
    valid_until: Moment | None = None


@event("catalog.v1", "product.withdrawn", aggregate="sku")
class ProductWithdrawn(Event):
    """The product may not be sold any more."""

    sku: Sku
