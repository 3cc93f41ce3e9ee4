"""Money is an integer of minor units beside a currency. Never a float."""

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

MINOR_DIGITS = dict.fromkeys("BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF".split(), 0) | dict.fromkeys(  # noqa: SIM905 - codes
    ["BHD", "JOD", "KWD", "OMR", "TND"],
    3,
)
"""Digits after the point where a currency has other than two, as the payment provider counts them and not always ISO 4217: it
counts whole ariary (MGA), and hundredths of ISK and UGX, which have none (docs.stripe.com/currencies, "special cases")."""

STEPS_MINOR = dict.fromkeys(("ISK", "UGX"), 100) | dict.fromkeys(("BHD", "JOD", "KWD", "OMR", "TND"), 10)
"""Where the provider moves only multiples of so many minor units."""

CURRENCIES = frozenset(
    (  # noqa: SIM905 - as above
        "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BWP BYN BZD CAD CDF CHF CLP CNY "
        "COP CRC CVE CZK DJF DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR ISK JMD "
        "JOD JPY KES KGS KHR KMF KRW KWD KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MUR MVR MWK MXN MYR MZN NAD "
        "NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SEK SGD SHP SLE SOS SRD SZL THB "
        "TJS TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VND VUV WST XAF XCD XOF XPF YER ZAR ZMW"
    ).split()
)
"""What a tenant may sell in: the presentment currencies that the provider lists, less those that are no money any more."""


def minor_digits(currency: str) -> int:
    """How many digits stand after the decimal point."""
    return MINOR_DIGITS.get(currency, 2)


def step_minor(currency: str) -> int:
    """The provider moves multiples of so many minor units."""
    return STEPS_MINOR.get(currency, 1)


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


def apportion(amount: int, weights: Sequence[int]) -> list[int]:
    """An amount over weights of which it is a part, each share within one of the exact one and none beyond its weight."""
    if not amount:
        return [0] * len(weights)
    whole = sum(weights)
    return spread([Fraction(amount * weight, whole) for weight in weights], amount)


def spread(exact: Sequence[Fraction], total: int) -> list[int]:
    """Whole numbers that add up to `total`, which is `exact` summed and rounded: the largest remainders are rounded up."""
    floors = [each.numerator // each.denominator for each in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: floors[index] - exact[index])
    for index in by_remainder[: total - sum(floors)]:
        floors[index] += 1
    return floors
