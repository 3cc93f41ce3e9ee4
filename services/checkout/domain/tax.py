"""Tax: a tenant's rates by country and category, and how amounts are rounded so that they always add up."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import ClassVar

from libs.common.decision import Aggregate
from libs.common.errors import NotFoundError, RejectedError
from libs.common.money import spread

ANY_CATEGORY = "*"
"""The rate of every category that has none of its own."""
SHIPPING_CATEGORY = "shipping"
"""What a delivery is taxed as."""
MAX_RATES = 1_000


class TaxRounding(StrEnum):
    """Where fractions of a minor unit end: on each line, or once on the whole. Half to even either way."""

    LINE = "line"
    TOTAL = "total"


@dataclass(frozen=True, kw_only=True, slots=True)
class TaxRate:
    """What part of an amount is owed as tax."""

    name: str
    rate: Decimal
    """In percent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaxTable(Aggregate):
    """A tenant's rates in one country, by category. One row, so that a quote finds all it needs with one key."""

    KEY: ClassVar[str] = "country"
    country: str
    rates: dict[str, TaxRate] = field(default_factory=dict)

    def rate_of(self, category: str) -> TaxRate | None:
        """The category's own rate, or the one of any category. None: nothing is owed."""
        return self.rates.get(category) or self.rates.get(ANY_CATEGORY)


def put_rate(table: TaxTable, category: str, rate: TaxRate) -> TaxTable:
    """Tax a category at this rate from now on. Quotes that were made stay as they are."""
    if category not in table.rates and len(table.rates) >= MAX_RATES:
        raise RejectedError("too-many-tax-rates", f"a country has at most {MAX_RATES} tax rates")
    return replace(table, rates={**table.rates, category: rate})


def remove_rate(table: TaxTable | None, category: str) -> TaxTable:
    """Tax a category like any other again. Raises NotFoundError when it has no rate of its own."""
    if table is None or category not in table.rates:
        raise NotFoundError("tax-rate-not-found", "there is no such tax rate for you")
    return replace(table, rates={name: rate for name, rate in table.rates.items() if name != category})


def taxes(taxable: Sequence[tuple[int, TaxRate | None]], rounding: TaxRounding, *, included: bool) -> list[int]:
    """The tax on each amount in minor units: added to it, or the part of it that is tax when `included`.

    Rounded on the total, the parts are those nearest to the exact ones that add up to it.
    """
    if not any(rate for _, rate in taxable):
        return [0] * len(taxable)
    exact = [_exact(amount, rate, included=included) for amount, rate in taxable]
    if rounding is TaxRounding.LINE:
        return [round(each) for each in exact]
    return spread(exact, round(sum(exact, Fraction())))


def _exact(amount: int, rate: TaxRate | None, *, included: bool) -> Fraction:
    if rate is None:
        return Fraction()
    part = Fraction(rate.rate) / 100
    return amount * (part / (1 + part) if included else part)
