"""HTTP in: what a quote is made of beside the cart. Shoppers see the shipping methods, for they choose one."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Self

from fastapi import Path, Response
from pydantic import BaseModel, Field, field_validator, model_validator

from libs.common.contracts import Minor
from libs.common.contracts.external import NAMED
from libs.common.countries import COUNTRIES
from libs.common.errors import NotFoundError, RejectedError
from libs.common.http.paging import Limit, Page, Paging
from libs.common.http.routes import Caller, Facing, Routes, guard, reply
from libs.common.http.seeing import Sight, listed, of_the_tenant
from libs.common.money import CURRENCIES
from services.checkout import repository
from services.checkout.api.models import Body, Country, Words
from services.checkout.domain.shipping import ShippingKind, ShippingMethod, ShippingRate
from services.checkout.domain.tax import TaxRate
from services.checkout.handlers.quoting import DeleteShippingMethod, DeleteTaxRate, PutShippingMethod, PutTaxRate

ROUTES = Routes(Facing.CUSTOMERS)
HIGHEST_PERCENT = 100
SHIPPING_METHOD = Sight(repository.SHIPPING_METHODS, "code")

CodePath = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"), NAMED]
CountryPath = Annotated[str, Path(pattern="^[A-Z]{2}$")]
CategoryPath = Annotated[
    str,
    Path(pattern=r"^[^\x00-\x1f\x7f]{1,500}$", description="A category of the catalogue; `*`: any without a rate; `shipping`"),
    NAMED,
]


class RateModel(Body):
    """What it costs to send so much to some countries."""

    countries: Annotated[
        list[Country] | None,
        Field(min_length=1, max_length=len(COUNTRIES), description="Absent: every country that no other rate names"),
    ] = None
    up_to: Annotated[
        Minor | None,
        Field(description="The most that this is for, itself included: grams by weight, minor units by value. Absent: any"),
    ] = None
    amount_minor: Minor


class ShippingMethodBody(Body):
    """How orders can be sent, and what that costs. `value` goes by the goods less their discount."""

    name: Words
    kind: ShippingKind
    currency: Annotated[str, Field(examples=["GBP"])]
    rates: Annotated[list[RateModel], Field(min_length=1, max_length=1_000)]

    @field_validator("currency")
    @classmethod
    def _is_supported(cls, currency: str) -> str:
        if currency not in CURRENCIES:
            message = "not a currency this platform sells in"
            raise ValueError(message)
        return currency


class ShippingMethodModel(BaseModel):
    """A shipping method."""

    code: str
    name: str
    kind: ShippingKind
    currency: str
    rates: list[RateModel]


class TaxRateBody(Body):
    """What part of a price is tax."""

    name: Words
    rate: Annotated[str, Field(pattern=r"^\d{1,3}(\.\d{1,4})?$", description="In percent", examples=["20", "7.75"])]

    @model_validator(mode="after")
    def _is_a_part(self) -> Self:
        if Decimal(self.rate) > HIGHEST_PERCENT:
            message = f"a tax rate is at most {HIGHEST_PERCENT} percent"
            raise ValueError(message)
        return self


class TaxRateModel(BaseModel):
    """The tax on a category of goods in a country."""

    country: str
    category: str
    name: str
    rate: str


def shipping_method_model(method: ShippingMethod) -> ShippingMethodModel:
    """A shipping method for an answer."""
    return ShippingMethodModel(
        code=method.code,
        name=method.name,
        kind=method.kind,
        currency=method.currency,
        rates=[
            RateModel(
                countries=list(rate.countries) if rate.countries else None, up_to=rate.up_to, amount_minor=rate.amount_minor
            )
            for rate in method.rates
        ],
    )


def _rates(models: Sequence[RateModel]) -> tuple[ShippingRate, ...]:
    return tuple(
        ShippingRate(
            countries=tuple(model.countries) if model.countries else None, up_to=model.up_to, amount_minor=model.amount_minor
        )
        for model in models
    )


def tax_rate_model(country: str, category: str, rate: TaxRate) -> TaxRateModel:
    """A tax rate for an answer."""
    return TaxRateModel(country=country, category=category, name=rate.name, rate=str(rate.rate))


@ROUTES.put("/v1/shipping-methods/{code}", response_model=ShippingMethodModel)
@guard("settings:write", sees=of_the_tenant)
async def put_shipping_method(call: Caller, code: CodePath, body: ShippingMethodBody) -> Response:
    """Offer a way to send orders, or the same on other terms. Quotes that were made stand."""
    command = PutShippingMethod(code=code, name=body.name, kind=body.kind, currency=body.currency, rates=_rates(body.rates))
    method: ShippingMethod = await call.execute(command)
    return reply(200, shipping_method_model(method), ETag=f'"{method.version}"')


@ROUTES.get("/v1/shipping-methods", response_model=Page[ShippingMethodModel])
@guard("checkouts:read")
async def list_shipping_methods(call: Caller, limit: Limit = 50, cursor: str | None = None) -> Response:
    """Every way this tenant sends orders, by code."""
    return await listed(call, repository.SHIPPING_METHODS, shipping_method_model, limit, cursor)


@ROUTES.get("/v1/shipping-methods/{code}", response_model=ShippingMethodModel)
@guard("checkouts:read", sees=SHIPPING_METHOD)
async def read_shipping_method(call: Caller, code: CodePath) -> Response:
    """One way to send orders."""
    method = await SHIPPING_METHOD.of(call, code)
    return reply(200, shipping_method_model(method), ETag=f'"{method.version}"')


@ROUTES.delete("/v1/shipping-methods/{code}", status_code=204)
@guard("settings:write", sees=of_the_tenant)
async def delete_shipping_method(call: Caller, code: CodePath) -> Response:
    """Offer it no more. A checkout that chose it and is not quoted yet fails; quotes stand."""
    await call.execute(DeleteShippingMethod(code=code))
    return reply(204, None)


@ROUTES.put("/v1/tax-rates/{country}/{category:path}", response_model=TaxRateModel)
@guard("settings:write", sees=of_the_tenant)
async def put_tax_rate(call: Caller, country: CountryPath, category: CategoryPath, body: TaxRateBody) -> Response:
    """Tax a category of goods in a country. Quotes that were made stand."""
    if country not in COUNTRIES:
        raise RejectedError("country-unknown", f"{country} is no country of ISO 3166-1")
    rate = TaxRate(name=body.name, rate=Decimal(body.rate))
    await call.execute(PutTaxRate(country=country, category=category, rate=rate))
    return reply(200, tax_rate_model(country, category, rate))


@ROUTES.get("/v1/tax-rates", response_model=Page[TaxRateModel])
@guard("settings:read")
async def list_tax_rates(call: Caller, country: Country | None = None, limit: Limit = 50, cursor: str | None = None) -> Response:
    """Every tax rate, or those of a country, by country and category."""
    asked = Paging(limit, cursor, str, str)
    async with call.transaction() as connection:
        found = await repository.quoting.tax_rates(
            connection, call.tenant_id, after=asked.after or ("", ""), country=country, limit=asked.most
        )
    return asked.reply(found, lambda each: tax_rate_model(*each), lambda each: each[:2])


@ROUTES.get("/v1/tax-rates/{country}/{category:path}", response_model=TaxRateModel)
@guard("settings:read", sees=of_the_tenant)
async def read_tax_rate(call: Caller, country: CountryPath, category: CategoryPath) -> Response:
    """The tax on a category of goods in a country."""
    async with call.transaction() as connection:
        found = await repository.TAX_TABLES.load(connection, [(call.tenant_id, country)], lock=False)
    rate = found[0].rates.get(category) if found else None
    if rate is None:
        raise NotFoundError("tax-rate-not-found", "there is no such tax rate for you")
    return reply(200, tax_rate_model(country, category, rate))


@ROUTES.delete("/v1/tax-rates/{country}/{category:path}", status_code=204)
@guard("settings:write", sees=of_the_tenant)
async def delete_tax_rate(call: Caller, country: CountryPath, category: CategoryPath) -> Response:
    """Tax the category like any other again. Quotes that were made stand."""
    await call.execute(DeleteTaxRate(country=country, category=category))
    return reply(204, None)
