"""The test cards: one row per `pm_card_*`, so a new card is a new row."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Card:
    """What the issuer answers for one test payment method; without a `decline_code` it says yes."""

    payment_method: str
    last4: str
    brand: str = "visa"
    error_code: str = "card_declined"
    decline_code: str | None = None
    message: str = "Your card was declined."
    advice_code: str | None = None


CARDS = MappingProxyType(
    {
        card.payment_method: card
        for card in (
            Card("pm_card_visa", "4242"),
            Card("pm_card_chargeDeclined", "0002", decline_code="generic_decline", advice_code="try_again_later"),
            Card(
                "pm_card_chargeDeclinedInsufficientFunds",
                "9995",
                decline_code="insufficient_funds",
                message="Your card has insufficient funds.",
                advice_code="try_again_later",
            ),
        )
    }
)
