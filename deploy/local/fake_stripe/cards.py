"""The test cards: one row per `pm_card_*`, so a new card is a new row (docs.stripe.com/testing).

The ids stay the aliases; Stripe would make a `pm_…` of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True)
class Card:
    """What becomes of a payment with one test payment method; without an `error_code` the issuer says yes.

    `refund` tells how a refund of it ends, `disputes` which cases a capture opens (reason, or `inquiry:reason`).
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
    challenge: Literal["never", "on-request", "always"] = "never"
    refund: Literal["at-once", "pending", "fails"] = "at-once"
    disputes: tuple[str, ...] = ()
    blocked: bool = False


def _declined(
    name: str, last4: str, decline_code: str, message: str = "Your card was declined.", advice: str | None = None
) -> Card:
    card = f"pm_card_{name}"
    return Card(card, last4, error_code="card_declined", decline_code=decline_code, message=message, advice_code=advice)


def _wrong(name: str, last4: str, code: str, message: str, advice: str | None = None) -> Card:
    return Card(f"pm_card_{name}", last4, error_code=code, decline_code=code, message=message, advice_code=advice)


_PAYING = (
    Card("pm_card_visa", "4242"),
    Card("pm_card_visa_debit", "5556", funding="debit"),
    Card("pm_card_mastercard", "4444", brand="mastercard"),
    Card("pm_card_mastercard_debit", "8210", brand="mastercard", funding="debit"),
    Card("pm_card_mastercard_prepaid", "5100", brand="mastercard", funding="prepaid"),
    Card("pm_card_amex", "8431", brand="amex"),
    Card("pm_card_discover", "1117", brand="discover"),
    Card("pm_card_diners", "0004", brand="diners"),
    Card("pm_card_jcb", "0505", brand="jcb"),
    Card("pm_card_unionpay", "0005", brand="unionpay"),
    Card("pm_card_gb", "0000", country="GB"),
    Card("pm_card_de", "0016", country="DE"),
    Card("pm_card_fr", "0003", country="FR"),
)
_DECLINING = (
    _declined("chargeDeclined", "0002", "generic_decline", "try_again_later"),
    _declined(
        "chargeDeclinedInsufficientFunds", "9995", "insufficient_funds", "Your card has insufficient funds.", "try_again_later"
    ),
    _declined("chargeDeclinedLostCard", "9987", "lost_card", "do_not_try_again"),
    _declined("chargeDeclinedStolenCard", "9979", "stolen_card", "do_not_try_again"),
    _declined("chargeDeclinedFraudulent", "0019", "fraudulent", "do_not_try_again"),
    _declined("chargeDeclinedVelocityLimitExceeded", "6975", "card_velocity_exceeded", "try_again_later"),
    _declined("chargeCustomerFail", "0341", "generic_decline", "try_again_later"),
    _wrong("chargeDeclinedExpiredCard", "0069", "expired_card", "Your card has expired.", "do_not_try_again"),
    _wrong("chargeDeclinedIncorrectCvc", "0127", "incorrect_cvc", "Your card's security code is incorrect.", "confirm_card_data"),
    _wrong(
        "chargeDeclinedProcessingError",
        "0119",
        "processing_error",
        "An error occurred while processing your card. Try again in a little bit.",
        "try_again_later",
    ),
    Card("pm_card_radarBlock", "0019", error_code="card_declined", decline_code="fraudulent", blocked=True),
)
_CHALLENGED = (
    Card("pm_card_authenticationRequired", "3184", challenge="always"),
    Card("pm_card_authenticationRequiredOnSetup", "3155", challenge="always"),
    Card("pm_card_threeDSecureRequired", "3063", challenge="always"),
    Card("pm_card_threeDSecure2Required", "3220", challenge="always"),
    Card("pm_card_threeDSecureOptional", "3055", challenge="on-request"),
    Card(
        "pm_card_threeDSecureRequiredChargeDeclined",
        "1629",
        challenge="always",
        error_code="card_declined",
        decline_code="generic_decline",
        advice_code="try_again_later",
    ),
    Card(
        "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds",
        "8341",
        challenge="always",
        error_code="card_declined",
        decline_code="insufficient_funds",
        message="Your card has insufficient funds.",
        advice_code="try_again_later",
    ),
)
_TROUBLED = (
    Card("pm_card_pendingRefund", "7726", refund="pending"),
    Card("pm_card_refundFail", "5126", refund="fails"),
    Card("pm_card_createDispute", "0259", disputes=("fraudulent",)),
    Card("pm_card_createDisputeProductNotReceived", "2685", disputes=("product_not_received",)),
    Card("pm_card_createDisputeInquiry", "1976", disputes=("inquiry:fraudulent",)),
    Card("pm_card_createMultipleDisputes", "0079", disputes=("fraudulent", "fraudulent")),
)

CARDS: Mapping[str, Card] = MappingProxyType(
    {card.payment_method: card for card in (*_PAYING, *_DECLINING, *_CHALLENGED, *_TROUBLED)}
)
