"""Shipping methods and tax rates: what a tenant sets, and what of it a checkout is quoted by.

A quote reads them with the batch it is made in, so that it never goes by terms that were replaced before it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from libs.common.decision import Message, Ref, World
from libs.common.errors import RejectedError
from libs.common.tenancy import Tenant
from services.checkout.domain import shipping, tax
from services.checkout.domain.quote import Address, Terms, UnquotableError
from services.checkout.domain.saga import Checkout
from services.checkout.domain.shipping import ShippingKind, ShippingMethod, ShippingRate
from services.checkout.domain.tax import TaxRate, TaxRounding, TaxTable
from services.checkout.handlers.table import HANDLERS


@dataclass(frozen=True, slots=True, kw_only=True)
class PutShippingMethod:
    """Offer a way to send orders, or offer it on other terms."""

    code: str
    name: str
    kind: ShippingKind
    currency: str
    rates: tuple[ShippingRate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteShippingMethod:
    """Offer it no more."""

    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PutTaxRate:
    """Tax a category of goods in a country."""

    country: str
    category: str
    rate: TaxRate


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteTaxRate:
    """Tax it like any other category again."""

    country: str
    category: str


@HANDLERS.on(PutShippingMethod, lambda m: [Ref(ShippingMethod, m.data.code)])
def put_shipping_method(world: World, message: Message[PutShippingMethod]) -> ShippingMethod:
    """Answers the method as it is now."""
    command = message.data
    known = world.get(ShippingMethod, command.code)
    wanted = ShippingMethod(
        tenant_id=world.tenant_id,
        code=command.code,
        name=command.name,
        kind=command.kind,
        currency=command.currency,
        rates=command.rates,
    )
    method = shipping.define(known, wanted)
    return method if method == known else world.save(method)


@HANDLERS.on(DeleteShippingMethod, lambda m: [Ref(ShippingMethod, m.data.code)])
def delete_shipping_method(world: World, message: Message[DeleteShippingMethod]) -> None:
    """Checkouts that have not been quoted yet will fail; quotes stand."""
    world.save(shipping.delete(world.get(ShippingMethod, message.data.code), world.now))


@HANDLERS.on(PutTaxRate, lambda m: [Ref(TaxTable, m.data.country)])
def put_tax_rate(world: World, message: Message[PutTaxRate]) -> TaxTable:
    """Answers the country's rates as they are now."""
    command = message.data
    known = world.get(TaxTable, command.country)
    table = tax.put_rate(known or TaxTable(tenant_id=world.tenant_id, country=command.country), command.category, command.rate)
    return table if table == known else world.save(table)


@HANDLERS.on(DeleteTaxRate, lambda m: [Ref(TaxTable, m.data.country)])
def delete_tax_rate(world: World, message: Message[DeleteTaxRate]) -> None:
    """Quotes stand."""
    world.save(tax.remove_rate(world.get(TaxTable, message.data.country), message.data.category))


def method_refs(code: str | None) -> list[Ref]:
    """The shipping method that was asked for, if any, to look at."""
    return [Ref(ShippingMethod, code, shared=True)] if code else []


def demand_deliverable(world: World, code: str | None, address: Address | None) -> None:
    """Refuse at once what could never be sent as asked. Raises RejectedError."""
    if code:
        shipping.demand_deliverable(world.get(ShippingMethod, code), address.country if address else None)
        return
    tenant = world.get(Tenant, world.tenant_id)
    if tenant is not None and tenant.settings.get("shipping_required") is True:
        raise RejectedError("shipping-method-required", "say by its code how this is to be sent")


def terms_refs(world: World, checkout: Checkout) -> Iterable[Ref]:
    """What the checkout's quote is made of, beside the cart."""
    country = _country(world, checkout)
    return [*method_refs(checkout.shipping_method), *([Ref(TaxTable, country, shared=True)] if country else [])]


def terms(world: World, checkout: Checkout) -> Terms:
    """The terms of this moment. Raises UnquotableError when the shipping method is none."""
    tenant, country = world.get(Tenant, world.tenant_id), _country(world, checkout)
    settings = tenant.settings if tenant else {}
    method = world.get(ShippingMethod, checkout.shipping_method) if checkout.shipping_method else None
    if checkout.shipping_method and method is None:
        raise UnquotableError("shipping-unavailable", f"there is no shipping method {checkout.shipping_method}")
    return Terms(
        shipping=method,
        shipping_address=checkout.shipping_address,
        country=country,
        taxes=world.get(TaxTable, country) if country else None,
        tax_included=settings.get("prices_include_tax") is True,
        tax_rounding=TaxRounding(settings.get("tax_rounding", TaxRounding.LINE)),
        expires_at=checkout.expires_at,
    )


def _country(world: World, checkout: Checkout) -> str | None:
    """Where the order is taxed: where it goes to, else where the bill goes to, else at home."""
    address = checkout.shipping_address or checkout.billing_address
    if address is not None:
        return address.country
    tenant = world.get(Tenant, world.tenant_id)
    return tenant.country if tenant else None
