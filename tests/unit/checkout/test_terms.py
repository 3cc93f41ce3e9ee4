"""What a tenant sets of shipping and taxes: said again it is no news, and gone it is offered no more."""

from decimal import Decimal
from uuid import uuid4

import pytest

from libs.common.errors import NotFoundError, RejectedError
from services.checkout.domain.quote import Address
from services.checkout.domain.saga import Checkout
from services.checkout.domain.shipping import ShippingKind, ShippingMethod, ShippingRate
from services.checkout.domain.tax import TaxRate, TaxTable
from services.checkout.handlers import StartCheckout
from services.checkout.handlers.quoting import DeleteShippingMethod, DeleteTaxRate, PutShippingMethod, PutTaxRate
from tests.unit.checkout.shop import shop
from tests.unit.memory import NOW

RATES = (
    ShippingRate(countries=("GB",), up_to=1_000, amount_minor=300),
    ShippingRate(countries=("GB",), amount_minor=700),
    ShippingRate(amount_minor=2_000),
)
POST = PutShippingMethod(code="post", name="Post", kind=ShippingKind.WEIGHT, currency="GBP", rates=RATES)
VAT = PutTaxRate(country="GB", category="food", rate=TaxRate(name="VAT", rate=Decimal("7.7")))


def test_what_is_put_again_is_no_news_and_what_is_changed_or_comes_back_is() -> None:
    memory = shop()
    versions = [memory.execute(POST).version for _ in range(2)]
    assert versions == [1, 1]
    assert memory.execute(PutShippingMethod(code="post", name="Mail", kind=POST.kind, currency="GBP", rates=RATES)).version == 2
    memory.execute(DeleteShippingMethod(code="post"))
    gone = memory.get(ShippingMethod, "post")
    assert (gone.is_gone, gone.deleted_at, gone.version) == (True, NOW, 3)
    with pytest.raises(NotFoundError):
        memory.execute(DeleteShippingMethod(code="post"))
    back = memory.execute(POST)
    assert (back.is_gone, back.version) == (False, 4)


def test_a_tax_rate_that_is_put_again_is_no_news_and_one_that_is_gone_is_not_there_to_be_taken_away() -> None:
    memory = shop()
    assert [memory.execute(VAT).version for _ in range(2)] == [1, 1]
    memory.execute(DeleteTaxRate(country="GB", category="food"))
    assert memory.get(TaxTable, "GB").rates == {}
    for country, category in (("GB", "food"), ("FR", "food")):
        with pytest.raises(NotFoundError):
            memory.execute(DeleteTaxRate(country=country, category=category))


@pytest.mark.parametrize(
    ("country", "currency", "grams", "costs"),
    [
        ("GB", "GBP", 1_000, 300),
        ("GB", "GBP", 1_001, 700),
        ("FR", "GBP", 9_999, 2_000),
        (None, "GBP", 1, 2_000),
        ("GB", "EUR", 1, None),
    ],
)
def test_the_dearest_limit_that_fits_is_not_asked_where_a_lower_one_does(
    country: str | None, currency: str, grams: int, costs: int | None
) -> None:
    method: ShippingMethod = shop().execute(POST)
    assert method.charge(country, currency, grams=grams, value_minor=0) == costs


def test_two_rates_for_the_same_are_refused_and_so_is_a_flat_one_with_a_limit() -> None:
    for code, kind, rates in (
        ("ambiguous-rates", ShippingKind.WEIGHT, (RATES[2], RATES[2])),
        ("flat-rate-limit", ShippingKind.FLAT, RATES),
    ):
        with pytest.raises(RejectedError, match=code):
            shop().execute(PutShippingMethod(code="x", name="X", kind=kind, currency="GBP", rates=rates))


def test_what_goes_by_country_is_taken_with_an_address_it_goes_to_and_refused_at_once_without() -> None:
    memory = shop(tea=1)
    memory.execute(PutShippingMethod(code="gb", name="Post", kind=ShippingKind.WEIGHT, currency="GBP", rates=RATES[:2]))

    def start(country: str | None) -> Checkout:
        address = Address(name="A", line1="1 Street", country=country) if country else None
        started: Checkout = memory.execute(
            StartCheckout(
                checkout_id=uuid4(),
                cart_id=uuid4(),
                subject_id=uuid4(),
                method="pm_card_visa",
                email=None,
                body_digest="body",
                ttl_seconds=900,
                shipping_method="gb",
                shipping_address=address,
            )
        )
        return started

    assert start("GB").shipping_method == "gb"
    for country, code in ((None, "shipping-address-required"), ("FR", "shipping-unavailable")):
        with pytest.raises(RejectedError, match=code):
            start(country)
