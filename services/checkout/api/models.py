"""What several parts of this API accept and answer with."""

from dataclasses import asdict
from typing import Annotated, Final

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationInfo, field_validator

from libs.common.contracts.checkout import OrderLine
from libs.common.contracts.external import NAMED, WRITTEN, Sku
from libs.common.countries import COUNTRIES, needed_in
from services.checkout.domain.quote import Address, Quote, QuotedDiscount, QuoteDiscount, QuoteLine, QuoteShipping

SkuPath = Annotated[Sku, Path()]


class Body(BaseModel):
    """A request's body: what nobody knows is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _known(country: str) -> str:
    if country not in COUNTRIES:
        message = "not a country of ISO 3166-1"
        raise ValueError(message)
    return country


Country = Annotated[str, Field(pattern="^[A-Z]{2}$", description="ISO 3166-1 alpha-2", examples=["GB"]), AfterValidator(_known)]
_ONE_LINE = r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"
Words = Annotated[str, Field(pattern=_ONE_LINE, max_length=200), WRITTEN]
"""Something to read on one line, and not nothing."""
Email = Annotated[str, Field(max_length=320, pattern=r"^[^@\s]+@[^@\s]+$", examples=["ada@shop.example"]), NAMED]
Reason = Annotated[str, Field(min_length=1, max_length=500), WRITTEN]


Town = Annotated[str, Field(pattern=_ONE_LINE, max_length=100), WRITTEN]
PostalCode = Annotated[str, Field(pattern=_ONE_LINE, max_length=20), WRITTEN]
Phone = Annotated[str, Field(pattern=_ONE_LINE, max_length=30), WRITTEN]
_BY_COUNTRY = Field(validate_default=True, description="Required in a country whose addresses cannot do without one")


ADDRESS: Final[dict[str, JsonValue]] = {
    "name": "Ada Example",
    "line1": "1 Market Street",
    "city": "York",
    "postal_code": "YO1 1AA",
    "country": "GB",
}


class AddressModel(Body):
    """Where to. What an address needs depends on its country, which therefore is read first."""

    model_config = ConfigDict(json_schema_extra={"examples": [ADDRESS]})

    country: Country
    name: Words
    line1: Words
    line2: Words | None = None
    city: Annotated[Town | None, _BY_COUNTRY] = None
    region: Annotated[Town | None, _BY_COUNTRY] = None
    postal_code: Annotated[PostalCode | None, _BY_COUNTRY] = None
    phone: Phone | None = None

    @field_validator("city", "region", "postal_code")
    @classmethod
    def _is_there(cls, value: str | None, info: ValidationInfo) -> str | None:
        country = info.data.get("country")
        if value is None and country is not None and info.field_name in needed_in(country):
            message = f"an address in {country} needs one"
            raise ValueError(message)
        return value


def address_of(model: AddressModel | None) -> Address | None:
    """An address as the domain knows it."""
    return Address(**model.model_dump()) if model else None


def address_model(address: Address | None) -> AddressModel | None:
    """An address for an answer."""
    return AddressModel.model_construct(**asdict(address)) if address else None


class LineModel(BaseModel):
    """One line of a quote, and of the order it becomes."""

    line_id: str
    sku: str
    name: str
    quantity: int
    unit_minor: int
    total_minor: Annotated[int, Field(description="Unit price times quantity: before discount and tax")]
    discount_minor: int | None
    tax_minor: int | None


class LineDiscountModel(BaseModel):
    """What a discount takes off one line."""

    line_id: str
    amount_minor: int


class DiscountModel(BaseModel):
    """An amount that is taken off."""

    promotion: Annotated[str | None, Field(description="The promotion's code; absent of what is rounded down")]
    coupon: Annotated[str | None, Field(description="The coupon that it is given for")]
    amount_minor: int
    lines: Annotated[list[LineDiscountModel], Field(description="Each line's part, together the amount; none: off the whole")]
    reason: Annotated[str, Field(description="What the buyer is told of it")]


class ShippingModel(BaseModel):
    """How the order is sent."""

    code: str
    name: str
    tax_minor: int


class QuoteModel(BaseModel):
    """What the order costs, fixed."""

    lines: list[LineModel]
    discounts: list[DiscountModel]
    subtotal_minor: int
    discount_minor: int
    shipping_minor: int
    tax_minor: int
    total_minor: int
    tax_included: Annotated[bool, Field(description="The tax is part of the prices: shown, and not added")]
    shipping: ShippingModel | None
    hash: str


def line_model(line: QuoteLine | OrderLine) -> LineModel:
    """A line for an answer."""
    return LineModel(
        line_id=line.line_id,
        sku=line.sku,
        name=line.name,
        quantity=line.quantity,
        unit_minor=line.unit_minor,
        total_minor=line.total_minor,
        discount_minor=line.discount_minor,
        tax_minor=line.tax_minor,
    )


def discount_model(discount: QuotedDiscount) -> DiscountModel:
    """A discount for an answer."""
    if isinstance(discount, QuoteDiscount):
        return DiscountModel(promotion=None, coupon=None, amount_minor=discount.amount_minor, lines=[], reason=discount.code)
    return DiscountModel(
        promotion=discount.code,
        coupon=discount.coupon,
        amount_minor=discount.amount_minor,
        lines=[LineDiscountModel(line_id=each.line_id, amount_minor=each.amount_minor) for each in discount.lines],
        reason=discount.reason,
    )


def shipping_model(shipping: QuoteShipping | None) -> ShippingModel | None:
    """How a quote is sent, for an answer."""
    return ShippingModel(code=shipping.code, name=shipping.name, tax_minor=shipping.tax_minor) if shipping else None


def quote_model(quote: Quote) -> QuoteModel:
    """A quote for an answer."""
    return QuoteModel(
        lines=[line_model(line) for line in quote.lines],
        discounts=[discount_model(each) for each in quote.discounts],
        subtotal_minor=quote.subtotal_minor,
        discount_minor=quote.discount_minor,
        shipping_minor=quote.shipping_minor,
        tax_minor=quote.tax_minor,
        total_minor=quote.total_minor,
        tax_included=quote.tax_included,
        shipping=shipping_model(quote.shipping),
        hash=quote.digest,
    )
