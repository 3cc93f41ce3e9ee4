from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.fake_stripe.currencies import CURRENCIES as PROVIDERS
from libs.common.contracts import Currency
from libs.common.contracts.currencies import KNOWN_CURRENCIES
from libs.common.money import CURRENCIES, MINOR_DIGITS, STEPS_MINOR, format_minor, minor_digits, parse_minor, step_minor
from services.payments.domain.payment.asking import is_payable

AMOUNTS = st.integers(-9_000_000_000_000_000, 9_000_000_000_000_000)


@given(AMOUNTS, st.sampled_from(sorted(CURRENCIES)))
def test_what_is_written_is_read_back_to_the_minor_unit(amount_minor: int, currency: Currency) -> None:
    amount, _, code = format_minor(amount_minor, currency).partition(" ")
    assert code == currency
    assert parse_minor(amount.replace(",", ""), currency) == amount_minor


@given(st.decimals(min_value=-(10**10), max_value=10**10, allow_nan=False, places=6), st.sampled_from(["GBP", "JPY", "KWD"]))
def test_a_decimal_is_rounded_half_to_even_and_by_less_than_a_minor_unit(amount: Decimal, currency: Currency) -> None:
    exact = amount * 10 ** minor_digits(currency)
    minor = parse_minor(str(amount), currency)
    assert minor == int(exact.to_integral_value(ROUND_HALF_EVEN))
    assert abs(minor - exact) <= Decimal("0.5")


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("2.55", "GBP", 255),
        ("0.005", "GBP", 0),
        ("0.015", "GBP", 2),
        ("0.025", "GBP", 2),
        ("0.0051", "GBP", 1),
        ("1234", "JPY", 1234),
        ("1234.5", "JPY", 1234),
        ("1.2345", "KWD", 1234),
        (" 1e2 ", "GBP", 10_000),
        ("-11062.06", "GBP", -1_106_206),
    ],
)
def test_amounts_are_read_as_the_currency_counts(text: str, currency: str, minor: int) -> None:
    assert parse_minor(text, currency) == minor


@pytest.mark.parametrize(
    "text", ["", "abc", "1,50", "£5", "1.2.3", "NaN", "sNaN", "Infinity", "-inf", "1e30", "1e999999", "0x10"]
)
def test_what_is_no_amount_is_refused_as_such(text: str) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        parse_minor(text, "GBP")


def test_what_is_sold_in_is_money_and_the_providers_and_so_is_every_exception() -> None:
    assert set(MINOR_DIGITS) | set(STEPS_MINOR) <= CURRENCIES
    assert CURRENCIES <= KNOWN_CURRENCIES
    assert {currency.lower() for currency in CURRENCIES} <= PROVIDERS
    assert len(CURRENCIES) > 130
    assert format_minor(123_450, "GBP") == "1,234.50 GBP"
    assert format_minor(-5, "KWD") == "-0.005 KWD"
    assert format_minor(1_234, "JPY") == "1,234 JPY"


@pytest.mark.parametrize(
    ("currency", "digits", "step"),
    [
        *((currency, 0, 1) for currency in ("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV")),
        *((currency, 0, 1) for currency in ("XAF", "XOF", "XPF")),
        *((currency, 3, 10) for currency in ("BHD", "JOD", "KWD", "OMR", "TND")),
        *((currency, 2, 100) for currency in ("ISK", "UGX")),
        *((currency, 2, 1) for currency in ("EUR", "HUF", "TWD", "CNY", "AED")),
    ],
)
def test_a_currency_is_counted_and_moved_as_the_provider_does(currency: str, digits: int, step: int) -> None:
    assert (minor_digits(currency), step_minor(currency)) == (digits, step)
    assert is_payable(step * 3, currency)
    assert is_payable(step * 3 + 1, currency) == (step == 1)
