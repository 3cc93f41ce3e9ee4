"""The test cards: one row per `pm_card_*`, so a new card is a new row (docs.stripe.com/testing).

The ids stay the aliases; Stripe would make a `pm_…` of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True)
class Card:
    """What becomes of a payment with one test payment method; without an `error_code` the issuer says yes.

    `param` is what of the card is wrong, `refund` tells how a refund of it ends, `disputes` which cases a capture opens
    (reason, or `inquiry:reason`), `checks` what the issuer says of security code and address.
    """

    payment_method: str
    last4: str
    brand: str = "visa"
    funding: str = "credit"
    country: str = "US"
    error_code: str | None = None
    decline_code: str | None = None
    message: str = "Your card was declined."
    advice_code: str | None = None
    param: str | None = None
    challenge: Literal["never", "on-request", "on-session", "always"] = "never"
    refund: Literal["at-once", "pending", "fails"] = "at-once"
    disputes: tuple[str, ...] = ()
    blocked: bool = False
    risk: Literal["normal", "elevated", "highest"] = "normal"
    checks: Mapping[str, str] = field(default_factory=dict)
    available_at_once: bool = False


_AGAIN, _NEVER, _CHECK = "try_again_later", "do_not_try_again", "confirm_card_data"
_POOR = "Your card has insufficient funds."
_TROUBLE = "An error occurred while processing your card. Try again in a little bit."


def _declined(
    name: str, last4: str, decline_code: str, message: str = "Your card was declined.", advice: str | None = None
) -> Card:
    card = f"pm_card_{name}"
    return Card(card, last4, error_code="card_declined", decline_code=decline_code, message=message, advice_code=advice)


def _wrong(name: str, last4: str, code: str, message: str, advice: str, param: str | None = None) -> Card:
    card = f"pm_card_{name}"
    return Card(card, last4, error_code=code, decline_code=code, message=message, advice_code=advice, param=param)


def _blocked(name: str, last4: str) -> Card:
    return Card(f"pm_card_{name}", last4, error_code="card_declined", decline_code="fraudulent", blocked=True, risk="highest")


_PAYING = (
    Card("pm_card_visa", "4242"),
    Card("pm_card_visa_debit", "5556", funding="debit"),
    Card("pm_card_visa_cartesBancaires", "1001", country="FR"),
    Card("pm_card_visa_debit_eftposAuCoBranded", "0001", funding="debit", country="AU"),
    Card("pm_card_mastercard", "4444", brand="mastercard"),
    Card("pm_card_mastercard_debit", "8210", brand="mastercard", funding="debit"),
    Card("pm_card_mastercard_prepaid", "5100", brand="mastercard", funding="prepaid"),
    Card("pm_card_mastercard_cartesBancaires", "1001", brand="mastercard", country="FR"),
    Card("pm_card_mastercard_debit_eftposAuCoBranded", "0080", brand="mastercard", funding="debit", country="AU"),
    Card("pm_card_amex", "8431", brand="amex"),
    Card("pm_card_amex_threeDSecureNotSupported", "0005", brand="amex"),
    Card("pm_card_discover", "1117", brand="discover"),
    Card("pm_card_diners", "0004", brand="diners"),
    Card("pm_card_jcb", "0505", brand="jcb", country="JP"),
    Card("pm_card_unionpay", "0005", brand="unionpay", country="CN"),
    Card("pm_card_bypassPending", "0077", available_at_once=True),
    Card("pm_card_bypassPendingInternational", "3720", available_at_once=True),
)
_COUNTRIES = [
    "us",
    "4242",
    "ar",
    "0021",
    "br",
    "0002",
    "ca",
    "0000",
    "cl",
    "0001",
    "co",
    "0003",
    "cr",
    "0005",
    "ec",
    "0000",
    "mx",
    "8001",
    "pa",
    "0000",
    "pe",
    "0068",
    "py",
    "0066",
    "uy",
    "0003",
    "ae",
    "0001",
    "at",
    "0008",
    "be",
    "0004",
    "bg",
    "0000",
    "by",
    "0005",
    "ch",
    "0009",
    "cy",
    "0008",
    "cz",
    "0002",
    "de",
    "0016",
    "dk",
    "0001",
    "ee",
    "0009",
    "es",
    "0007",
    "fi",
    "0001",
    "fr",
    "0003",
    "gb",
    "0000",
    "gi",
    "0005",
    "gr",
    "0030",
    "hr",
    "0009",
    "hu",
    "0005",
    "ie",
    "0005",
    "it",
    "0008",
    "li",
    "0004",
    "lt",
    "0000",
    "lu",
    "0006",
    "lv",
    "0005",
    "mt",
    "0007",
    "nl",
    "0002",
    "no",
    "0007",
    "pl",
    "0005",
    "pt",
    "0007",
    "ro",
    "0001",
    "sa",
    "0007",
    "se",
    "0008",
    "si",
    "0006",
    "sk",
    "0001",
    "au",
    "0006",
    "cn",
    "0002",
    "hk",
    "0004",
    "in",
    "0008",
    "jp",
    "0003",
    "my",
    "0002",
    "nz",
    "0008",
    "sg",
    "0003",
    "tw",
    "0008",
]
_BY_COUNTRY = (
    *(
        Card(f"pm_card_{code}", last4, country=code.upper())
        for code, last4 in zip(_COUNTRIES[::2], _COUNTRIES[1::2], strict=True)
    ),
    Card("pm_card_ae_mastercard", "0022", brand="mastercard", country="AE"),
    Card("pm_card_gb_debit", "0005", funding="debit", country="GB"),
    Card("pm_card_gb_mastercard", "4449", brand="mastercard", country="GB"),
    Card("pm_card_th_credit", "0003", country="TH"),
    Card("pm_card_th_debit", "0008", funding="debit", country="TH"),
)
_DECLINING = (
    _declined("chargeDeclined", "0002", "generic_decline", advice=_AGAIN),
    _declined("chargeDeclinedInsufficientFunds", "9995", "insufficient_funds", _POOR, _AGAIN),
    _declined("chargeDeclinedLostCard", "9987", "lost_card", advice=_NEVER),
    _declined("chargeDeclinedStolenCard", "9979", "stolen_card", advice=_NEVER),
    _declined("chargeDeclinedVelocityLimitExceeded", "6975", "card_velocity_exceeded", advice=_AGAIN),
    _declined("chargeCustomerFail", "0341", "generic_decline", advice=_AGAIN),
    _wrong("chargeDeclinedExpiredCard", "0069", "expired_card", "Your card has expired.", _CHECK, "exp_month"),
    _wrong("chargeDeclinedIncorrectCvc", "0127", "incorrect_cvc", "Your card's security code is incorrect.", _CHECK, "cvc"),
    _wrong("chargeDeclinedProcessingError", "0119", "processing_error", _TROUBLE, _AGAIN),
    _blocked("chargeDeclinedFraudulent", "0019"),
    _blocked("radarBlock", "0019"),
    _blocked("riskLevelHighest", "4954"),
)
_SUSPECT = (
    Card("pm_card_riskLevelElevated", "9235", risk="elevated"),
    Card("pm_card_cvcCheckFail", "0101", checks={"cvc_check": "fail"}),
    Card("pm_card_avsZipFail", "0036", checks={"address_postal_code_check": "fail"}),
    Card("pm_card_avsLine1Fail", "0028", checks={"address_line1_check": "fail"}),
    Card("pm_card_avsFail", "0010", checks={"address_line1_check": "fail", "address_postal_code_check": "fail"}),
    Card(
        "pm_card_avsUnchecked",
        "0044",
        checks={"address_line1_check": "unavailable", "address_postal_code_check": "unavailable"},
    ),
)
_CHALLENGED = (
    Card("pm_card_authenticationRequired", "3184", challenge="always"),
    Card("pm_card_authenticationRequiredOnSetup", "3155", challenge="always"),
    Card("pm_card_authenticationRequiredSetupForOffSession", "0446", challenge="on-session"),
    Card("pm_card_threeDSecureRequired", "3063", challenge="always"),
    Card("pm_card_threeDSecure2Required", "3220", challenge="always"),
    Card("pm_card_threeDSecureOptional", "3055", challenge="on-request"),
    replace(_declined("threeDSecureRequiredChargeDeclined", "1629", "generic_decline", advice=_AGAIN), challenge="always"),
    replace(
        _declined("authenticationRequiredChargeDeclinedInsufficientFunds", "8341", "insufficient_funds", _POOR, advice=_AGAIN),
        challenge="always",
    ),
)
_TROUBLED = (
    Card("pm_card_pendingRefund", "7726", refund="pending"),
    Card("pm_card_refundFail", "5126", refund="fails"),
    Card("pm_card_createDispute", "0259", disputes=("fraudulent",)),
    Card("pm_card_createDisputeProductNotReceived", "2685", disputes=("product_not_received",)),
    Card("pm_card_createDisputeInquiry", "1976", disputes=("inquiry:fraudulent",)),
    Card("pm_card_createMultipleDisputes", "0079", disputes=("fraudulent", "fraudulent")),
    Card("pm_card_createCe3EligibleDispute", "0038", disputes=("fraudulent",)),
    Card("pm_card_createComplianceDispute", "0779", disputes=("noncompliant",)),
    Card("pm_card_createIssuerFraudRecord", "5423"),
)
_ROWS = (*_PAYING, *_BY_COUNTRY, *_DECLINING, *_SUSPECT, *_CHALLENGED, *_TROUBLED)


def _as_visa(card: Card) -> Card:
    """The other spelling of a declining card: Stripe takes both, and writes now the one and now the other."""
    return replace(card, payment_method=card.payment_method.replace("pm_card_charge", "pm_card_visa_charge"))


CARDS: Mapping[str, Card] = MappingProxyType(
    {card.payment_method: card for card in (*_ROWS, *(_as_visa(card) for card in _DECLINING))}
)
