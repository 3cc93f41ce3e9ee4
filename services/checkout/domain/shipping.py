"""Shipping: a tenant's methods, and what each costs by country and by the weight or the value of what is sent."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from libs.common.decision import Aggregate, present
from libs.common.errors import RejectedError


class ShippingKind(StrEnum):
    """What a method's rates go by."""

    FLAT = "flat"
    WEIGHT = "weight"
    VALUE = "value"


@dataclass(frozen=True, kw_only=True, slots=True)
class ShippingRate:
    """What it costs to send so much to some countries."""

    countries: tuple[str, ...] | None = None
    """None: every country that no other rate of the method names."""
    up_to: int | None = None
    """The most that this rate is for: grams by weight, minor units by value. None: however much."""
    amount_minor: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ShippingMethod(Aggregate):
    """A way to send an order. One that was deleted stays as a row, so that its version goes on when it comes back."""

    KEY: ClassVar[str] = "code"
    OWNER: ClassVar[str | None] = None
    code: str
    name: str
    kind: ShippingKind
    currency: str
    rates: tuple[ShippingRate, ...]
    deleted_at: datetime | None = None

    @property
    def is_gone(self) -> bool:
        """Whether it was deleted."""
        return self.deleted_at is not None

    @property
    def needs_country(self) -> bool:
        """Whether nobody can say what it costs without knowing where to."""
        return any(rate.countries is not None for rate in self.rates)

    def rates_to(self, country: str | None) -> list[ShippingRate]:
        """The rates for a country: those that name it, else those that name none."""
        named = [rate for rate in self.rates if rate.countries is not None and country in rate.countries]
        return named or [rate for rate in self.rates if rate.countries is None]

    def charge(self, country: str | None, currency: str, *, grams: int, value_minor: int) -> int | None:
        """What it costs to send this there; None when the method does not go so far, or not with so much."""
        if self.is_gone or currency != self.currency:
            return None
        measure = {ShippingKind.FLAT: 0, ShippingKind.WEIGHT: grams, ShippingKind.VALUE: value_minor}[self.kind]
        fitting = [rate for rate in self.rates_to(country) if rate.up_to is None or measure <= rate.up_to]
        if not fitting:
            return None
        return min(fitting, key=lambda rate: (rate.up_to is None, rate.up_to or 0)).amount_minor


def define(known: ShippingMethod | None, method: ShippingMethod) -> ShippingMethod:
    """The method as it is from now on. Raises RejectedError when one of its rates could never be told from another."""
    places = [(country, rate.up_to) for rate in method.rates for country in (rate.countries or (None,))]
    if len(set(places)) != len(places):
        raise RejectedError("ambiguous-rates", "two rates of a method are for the same country and the same limit")
    if method.kind is ShippingKind.FLAT and any(rate.up_to is not None for rate in method.rates):
        raise RejectedError("flat-rate-limit", "a flat rate has no up_to: choose weight or value")
    return replace(method, version=known.version, sequence=known.sequence) if known else method


def delete(method: ShippingMethod | None, now: datetime) -> ShippingMethod:
    """Offer it no more. Quotes that name it stay as they are."""
    return replace(present(ShippingMethod, method), deleted_at=now)


def demand_deliverable(method: ShippingMethod | None, country: str | None) -> None:
    """Refuse at once what could never be sent. Whether it is too heavy shows once the cart is frozen."""
    if method is None or method.is_gone:
        raise RejectedError("shipping-method-unknown", "there is no such shipping method")
    if method.needs_country and country is None:
        raise RejectedError("shipping-address-required", f"{method.code} costs by country: say where to")
    if not method.rates_to(country):
        raise RejectedError("shipping-unavailable", f"{method.code} does not go to {country}")
