from dataclasses import replace
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from libs.common.contracts.cart import CartFrozen, Discount
from libs.common.errors import NotFoundError, RejectedError
from libs.common.money import apportion
from services.checkout.domain import shipping, tax
from services.checkout.domain.quote import MAX_TOTAL_MINOR, Address, Quote, Terms, UnquotableError, quote
from services.checkout.domain.shipping import ShippingKind, ShippingMethod, ShippingRate
from services.checkout.domain.tax import TaxRate, TaxRounding, TaxTable
from tests.shared.events import cart_frozen, frozen_line
from tests.unit.memory import NOW, TENANT

HOME = Address(name="A", line1="1 Street", city="London", postal_code="N1", country="GB")


def rate(percent: str) -> TaxRate:
    return TaxRate(name="VAT", rate=Decimal(percent))


def table(**percents: str) -> TaxTable:
    """Tax rates by category; `any` is that of any other."""
    rates = {("*" if category == "any" else category): rate(percent) for category, percent in percents.items()}
    return TaxTable(tenant_id=TENANT, country="GB", rates=rates)


def method(kind: ShippingKind = ShippingKind.FLAT, *rates: ShippingRate) -> ShippingMethod:
    return ShippingMethod(tenant_id=TENANT, code="post", name="Post", kind=kind, currency="GBP", rates=rates)


def cart(*lines: tuple[str, int, int], discount: int = 0, grams: int | None = None) -> CartFrozen:
    """A frozen cart of (category, quantity, unit price)."""
    frozen = [
        frozen_line(f"sku-{number}", quantity, unit, name="n", category=category, weight_grams=grams)
        for number, (category, quantity, unit) in enumerate(lines)
    ]
    whose = {"cart_id": UUID(int=1), "checkout_id": UUID(int=2), "subject_id": UUID(int=3)}
    full = sum(quantity * unit for _, quantity, unit in lines)
    return cart_frozen(*frozen, discount_minor=discount, version=1, total_minor=full, **whose)


PERCENTS = st.one_of(
    st.sampled_from(["0", "5", "7.7", "8.875", "19", "20", "25", "50", "100"]),
    st.decimals(0, 100, places=4).map(str),
)
CATEGORIES = st.sampled_from(["food", "books", "other", "shipping"])
LINES = st.lists(st.tuples(CATEGORIES, st.integers(1, 1_000), st.integers(0, 1_000_000)), min_size=1, max_size=12)
TABLES = st.dictionaries(st.one_of(CATEGORIES, st.just("any")), PERCENTS).map(lambda rates: table(**rates))
TERMS = st.builds(
    Terms,
    shipping=st.one_of(
        st.none(), st.integers(0, 100_000).map(lambda cost: method(ShippingKind.FLAT, ShippingRate(amount_minor=cost)))
    ),
    country=st.just("GB"),
    taxes=st.one_of(st.none(), TABLES),
    tax_included=st.booleans(),
    tax_rounding=st.sampled_from(TaxRounding),
)


@given(LINES, st.integers(0, 3_000_000), TERMS)
@settings(max_examples=300, deadline=None)
def test_whatever_the_terms_a_quote_adds_up_to_the_penny_in_all_and_line_by_line(
    lines: list[tuple[str, int, int]], discount: int, terms: Terms
) -> None:
    quoted = quote(cart(*lines, discount=discount), terms)
    added = 0 if terms.tax_included else quoted.tax_minor
    assert quoted.subtotal_minor == sum(line.total_minor for line in quoted.lines) == sum(q * unit for _, q, unit in lines)
    assert quoted.subtotal_minor - quoted.discount_minor + quoted.shipping_minor + added == quoted.total_minor
    assert quoted.discount_minor == min(discount, quoted.subtotal_minor) == sum(line.discount_minor for line in quoted.lines)
    shipping_tax = quoted.shipping.tax_minor if quoted.shipping else 0
    assert quoted.tax_minor == sum(line.tax_minor for line in quoted.lines) + shipping_tax
    for line in quoted.lines:
        assert 0 <= line.discount_minor <= line.total_minor
        assert 0 <= line.tax_minor <= max(line.total_minor - line.discount_minor, 0)
    # The tax is the exact one but for rounding: half a unit a line, or half a unit on the whole.
    exact = _exact_tax(quoted, terms)
    slack = Decimal(len(lines) + 1) / 2 if terms.tax_rounding is TaxRounding.LINE else Decimal("0.5")
    assert abs(quoted.tax_minor - exact) <= slack


def _exact_tax(quoted: Quote, terms: Terms) -> Decimal:
    """The tax as a person would work it out, from the quote's own lines and rates."""
    taxed = [(line.total_minor - line.discount_minor, line.tax_rate) for line in quoted.lines]
    if quoted.shipping:
        taxed.append((quoted.shipping_minor, quoted.shipping.tax_rate))
    exact = Decimal(0)
    for amount, percent in taxed:
        part = Decimal(percent or 0) / 100
        exact += amount * part / (1 + part) if terms.tax_included else amount * part
    return exact.quantize(Decimal("1e-9"))


@given(st.lists(st.integers(0, 10_000_000), min_size=1, max_size=20), st.data())
@settings(max_examples=200, deadline=None)
def test_an_apportioned_amount_loses_nothing_takes_nothing_twice_and_is_fair_to_a_unit(
    weights: list[int], data: st.DataObject
) -> None:
    amount = data.draw(st.integers(0, sum(weights)))
    shares = apportion(amount, weights)
    assert sum(shares) == amount
    for share, weight in zip(shares, weights, strict=True):
        assert 0 <= share <= weight
        assert abs(share * sum(weights) - amount * weight) < max(sum(weights), 1)


@given(st.integers(0, 10_000_000), PERCENTS)
@settings(max_examples=200, deadline=None)
def test_tax_on_one_amount_is_rounded_half_to_even_whichever_way_it_is_rounded(amount: int, percent: str) -> None:
    expected = int((amount * Decimal(percent) / 100).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))
    for rounding in TaxRounding:
        assert tax.taxes([(amount, rate(percent))], rounding, included=False) == [expected]


def test_halves_go_to_the_even_side_and_rounding_the_total_differs_from_rounding_lines() -> None:
    taxable = [(50, rate("5")), (150, rate("5")), (50, rate("5"))]  # 2.5, 7.5 and 2.5
    assert tax.taxes(taxable, TaxRounding.LINE, included=False) == [2, 8, 2]
    assert sum(tax.taxes(taxable, TaxRounding.TOTAL, included=False)) == 12  # 12.5
    small = [(9, rate("5"))] * 10  # 0.45 each, 4.5 in all
    assert tax.taxes(small, TaxRounding.LINE, included=False) == [0] * 10
    assert sum(tax.taxes(small, TaxRounding.TOTAL, included=False)) == 4


def test_included_tax_is_shown_and_not_added() -> None:
    lines = (("food", 1, 12_000), ("books", 2, 500))
    terms = Terms(taxes=table(food="20"), tax_included=True)
    quoted = quote(cart(*lines), terms)
    assert (quoted.total_minor, quoted.tax_minor, quoted.tax_included) == (13_000, 2_000, True)
    quoted = quote(cart(*lines), replace(terms, tax_included=False))
    assert (quoted.total_minor, quoted.tax_minor, quoted.tax_included) == (15_400, 2_400, False)


def test_a_category_without_a_rate_takes_that_of_any_and_is_free_of_tax_where_there_is_none() -> None:
    lines = (("food", 1, 1_000), ("books", 1, 1_000))
    assert [line.tax_minor for line in quote(cart(*lines), Terms(taxes=table(food="5", any="20"))).lines] == [50, 200]
    assert [line.tax_minor for line in quote(cart(*lines), Terms(taxes=table(food="0", any="20"))).lines] == [0, 200]
    assert [line.tax_minor for line in quote(cart(*lines), Terms(taxes=table(food="5"))).lines] == [50, 0]


def test_shipping_is_taxed_as_shipping() -> None:
    terms = Terms(shipping=method(ShippingKind.FLAT, ShippingRate(amount_minor=500)), taxes=table(shipping="20"))
    quoted = quote(cart(("food", 1, 1_000)), terms)
    assert (quoted.shipping_minor, quoted.tax_minor, quoted.total_minor) == (500, 100, 1_600)


@pytest.mark.parametrize(
    ("grams", "quantity", "country", "expected"),
    [
        (500, 1, "GB", 300),
        (500, 2, "GB", 300),  # the limit is within
        (501, 2, "GB", 700),
        (None, 9, "GB", 300),  # an unknown weight counts as none
        (-5, 9, "GB", 300),
        (5_001, 1, "GB", None),  # GB is named, so what other countries pay is not for it
        (5_001, 1, "FR", 2_000),
        (1, 1, "DE", 900),
        (5_001, 1, "DE", None),
    ],
)
def test_weight_goes_by_the_narrowest_rate_of_the_country(
    grams: int | None, quantity: int, country: str, expected: int | None
) -> None:
    by_weight = method(
        ShippingKind.WEIGHT,
        ShippingRate(countries=("GB",), up_to=5_000, amount_minor=700),
        ShippingRate(countries=("GB",), up_to=1_000, amount_minor=300),
        ShippingRate(countries=("DE", "AT"), up_to=5_000, amount_minor=900),
        ShippingRate(amount_minor=2_000),
    )
    terms = Terms(shipping=by_weight, shipping_address=replace(HOME, country=country))
    frozen = cart(("food", quantity, 100), grams=grams)
    if expected is None:
        with pytest.raises(UnquotableError, match="shipping-unavailable"):
            quote(frozen, terms)
    else:
        assert quote(frozen, terms).shipping_minor == expected


def test_value_goes_by_what_is_paid_for_the_goods_after_the_discount() -> None:
    by_value = method(ShippingKind.VALUE, ShippingRate(up_to=4_999, amount_minor=500), ShippingRate(amount_minor=0))
    assert quote(cart(("food", 1, 5_000)), Terms(shipping=by_value)).shipping_minor == 0
    assert quote(cart(("food", 1, 5_000), discount=1), Terms(shipping=by_value)).shipping_minor == 500


def test_a_method_of_another_currency_or_one_that_was_deleted_sends_nothing() -> None:
    flat = method(ShippingKind.FLAT, ShippingRate(amount_minor=500))
    for unusable in (replace(flat, currency="EUR"), shipping.delete(flat, NOW)):
        with pytest.raises(UnquotableError, match="shipping-unavailable"):
            quote(cart(("food", 1, 100)), Terms(shipping=unusable))


def test_an_order_beyond_what_an_event_can_say_is_not_quoted() -> None:
    dearest = cart(("food", 1, MAX_TOTAL_MINOR))
    assert quote(dearest).total_minor == MAX_TOTAL_MINOR
    with pytest.raises(UnquotableError, match="total-too-large"):
        quote(dearest, Terms(taxes=table(any="1")))


@pytest.mark.parametrize(
    ("known", "country", "code"),
    [
        (None, "GB", "shipping-method-unknown"),
        (shipping.delete(method(ShippingKind.FLAT, ShippingRate(amount_minor=1)), NOW), "GB", "shipping-method-unknown"),
        (method(ShippingKind.FLAT, ShippingRate(countries=("GB",), amount_minor=1)), None, "shipping-address-required"),
        (method(ShippingKind.FLAT, ShippingRate(countries=("GB",), amount_minor=1)), "FR", "shipping-unavailable"),
        (method(ShippingKind.FLAT, ShippingRate(countries=("GB",), amount_minor=1)), "GB", None),
        (method(ShippingKind.FLAT, ShippingRate(amount_minor=1)), None, None),
    ],
)
def test_what_can_never_be_sent_is_refused_before_anything_begins(
    known: ShippingMethod | None, country: str | None, code: str | None
) -> None:
    if code is None:
        shipping.demand_deliverable(known, country)
    else:
        with pytest.raises(RejectedError, match=code):
            shipping.demand_deliverable(known, country)


@pytest.mark.parametrize(
    ("kind", "rates", "code"),
    [
        (ShippingKind.FLAT, [ShippingRate(amount_minor=1), ShippingRate(amount_minor=2)], "ambiguous-rates"),
        (
            ShippingKind.WEIGHT,
            [
                ShippingRate(countries=("GB", "FR"), up_to=5, amount_minor=1),
                ShippingRate(countries=("FR",), up_to=5, amount_minor=2),
            ],
            "ambiguous-rates",
        ),
        (ShippingKind.FLAT, [ShippingRate(up_to=5, amount_minor=1)], "flat-rate-limit"),
    ],
)
def test_rates_that_nobody_could_choose_between_are_refused(kind: ShippingKind, rates: list[ShippingRate], code: str) -> None:
    with pytest.raises(RejectedError, match=code):
        shipping.define(None, method(kind, *rates))


def test_a_tax_rate_is_put_once_changed_in_place_and_gone_once() -> None:
    rates = tax.put_rate(tax.put_rate(table(), "food", rate("5")), "food", rate("6"))
    assert rates.rates == {"food": rate("6")}
    emptied = tax.remove_rate(rates, "food")
    assert emptied.rates == {}
    for known in (None, emptied):
        with pytest.raises(NotFoundError):
            tax.remove_rate(known, "food")


FULL = Terms(
    shipping=method(ShippingKind.FLAT, ShippingRate(amount_minor=500)),
    shipping_address=HOME,
    country="GB",
    taxes=table(food="17.5", any="20"),
    expires_at=datetime(2026, 1, 1, tzinfo=UTC),
)
CART = cart(("food", 2, 333), ("books", 1, 1_000), discount=100)


@pytest.mark.parametrize(
    ("frozen", "terms"),
    [
        (replace(CART, currency="GBX"), replace(FULL, shipping=None)),
        (cart(("food", 2, 333), ("books", 1, 1_000), discount=101), FULL),
        (replace(CART, discounts=(Discount(code="e", amount_minor=100),)), FULL),
        (CART, replace(FULL, tax_included=True)),
        (CART, replace(FULL, taxes=table(food="17.5", any="20.0001"))),
        (CART, replace(FULL, country="FR")),
        (CART, replace(FULL, shipping_address=replace(HOME, line1="2 Street"))),
        (CART, replace(FULL, expires_at=datetime(2026, 1, 2, tzinfo=UTC))),
        (CART, replace(FULL, shipping=method(ShippingKind.FLAT, ShippingRate(amount_minor=501)))),
    ],
)
def test_the_digest_covers_every_term_and_survives_being_stored(frozen: CartFrozen, terms: Terms) -> None:
    agreed = quote(CART, FULL)
    assert quote(frozen, terms).digest != agreed.digest
    adapter: TypeAdapter[Any] = TypeAdapter(Quote)
    stored = adapter.validate_json(adapter.dump_json(agreed))
    assert (stored, stored.digest) == (agreed, agreed.digest)
