"""The presentment currencies Stripe lists (docs.stripe.com/currencies), as lower-case ISO 4217 codes."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from types import MappingProxyType

CURRENCIES = frozenset(
    """
    aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn bzd cad cdf chf clp
    cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl hrk htg huf idr ils
    inr isk jmd jod jpy kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mur mvr mwk
    mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sek sgd shp
    sle sos srd std szl thb tjs tnd top try ttd twd tzs uah ugx usd uyu uzs vnd vuv wst xaf xcd xof xpf yer zar zmw
    """.split()  # noqa: SIM905 - 135 codes read better as a paragraph
)

_SYMBOLS = MappingProxyType({"usd": "$", "gbp": "£", "eur": "€", "jpy": "¥"})
_WITHOUT_MINOR_UNIT = frozenset("bif clp djf gnf jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf".split())  # noqa: SIM905 - as above


_WITH_THOUSANDTHS = frozenset("bhd jod kwd omr tnd".split())  # noqa: SIM905 - as above


def exchanged(amount: int, currency: str, other: str, rate: str) -> int:
    """Return what an amount is worth in another currency, one unit of which costs `1 / rate`; halves away from zero."""
    worth = Decimal(amount) * Decimal(rate) * Decimal(10) ** (_digits(other) - _digits(currency))
    return int(worth.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def _digits(currency: str) -> int:
    if currency in _WITHOUT_MINOR_UNIT:
        return 0
    return 3 if currency in _WITH_THOUSANDTHS else 2


def spelled(amount: int, currency: str) -> str:
    """Spell an amount as Stripe's messages do: `$12.50`, `¥1250`, `12.50 chf`."""
    number = str(amount) if currency in _WITHOUT_MINOR_UNIT else f"{amount // 100}.{amount % 100:02}"
    symbol = _SYMBOLS.get(currency)
    return f"{symbol}{number}" if symbol else f"{number} {currency}"
