"""Money is an integer of minor units beside a currency. Never a float."""

from decimal import ROUND_HALF_EVEN, Decimal

MINOR_DIGITS = {"JPY": 0, "KRW": 0, "BHD": 3, "KWD": 3}
"""Digits after the point where ISO 4217 has other than two."""

CURRENCIES = frozenset(
    [
        "AUD",
        "BHD",
        "BRL",
        "CAD",
        "CHF",
        "CZK",
        "DKK",
        "EUR",
        "GBP",
        "HKD",
        "HUF",
        "INR",
        "JPY",
        "KRW",
        "KWD",
        "MXN",
        "NOK",
        "NZD",
        "PLN",
        "RON",
        "SEK",
        "SGD",
        "USD",
        "ZAR",
    ]
)
"""What a tenant may sell in. A currency enters here once its minor units were checked against the provider's."""


def minor_digits(currency: str) -> int:
    """How many digits stand after the decimal point."""
    return MINOR_DIGITS.get(currency, 2)


def parse_minor(text: str, currency: str) -> int:
    """Read a decimal amount as minor units, half to even. Raises ValueError when it is no amount."""
    try:
        amount = Decimal(text)
        return int(amount.scaleb(minor_digits(currency)).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))
    except (ArithmeticError, ValueError) as error:  # neither a number, nor one that could be money
        message = f"not an amount: {text!r}"
        raise ValueError(message) from error


def format_minor(amount_minor: int, currency: str) -> str:
    """Write minor units for a person: `1,234.50 GBP`."""
    digits = minor_digits(currency)
    return f"{Decimal(amount_minor).scaleb(-digits):,.{digits}f} {currency}"
