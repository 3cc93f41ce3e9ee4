"""The PaymentIntent machine: pure functions from one frozen intent to the next.

Time and ids are arguments; the fake's books apply what these functions return. The states and the legal moves are
Stripe's (docs.stripe.com/payments/paymentintents/lifecycle).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from deploy.local.fake_stripe.cards import Card
from deploy.local.fake_stripe.errors import StripeError

HOLD_SECONDS = 7 * 24 * 3600
"""How long an authorization holds; the truth for a client is the charge's `capture_before`."""


class Status(StrEnum):
    """The seven states of a PaymentIntent."""

    REQUIRES_PAYMENT_METHOD = "requires_payment_method"
    REQUIRES_CONFIRMATION = "requires_confirmation"
    REQUIRES_ACTION = "requires_action"
    PROCESSING = "processing"
    REQUIRES_CAPTURE = "requires_capture"
    SUCCEEDED = "succeeded"
    CANCELED = "canceled"


class Verb(StrEnum):
    """What a client may ask of an intent."""

    CONFIRM = "confirm"
    CAPTURE = "capture"
    CANCEL = "cancel"


_CONFIRMED = frozenset(
    {
        Status.REQUIRES_PAYMENT_METHOD,  # the issuer declined
        Status.REQUIRES_ACTION,
        Status.PROCESSING,
        Status.REQUIRES_CAPTURE,
        Status.SUCCEEDED,
    }
)
_CANCELED = frozenset({Status.CANCELED})

TRANSITIONS: Mapping[Verb, Mapping[Status, frozenset[Status]]] = MappingProxyType(
    {
        Verb.CONFIRM: MappingProxyType(
            {
                Status.REQUIRES_PAYMENT_METHOD: _CONFIRMED,
                Status.REQUIRES_CONFIRMATION: _CONFIRMED,
                Status.REQUIRES_ACTION: _CONFIRMED,
            }
        ),
        Verb.CAPTURE: MappingProxyType({Status.REQUIRES_CAPTURE: frozenset({Status.SUCCEEDED})}),
        Verb.CANCEL: MappingProxyType(
            {
                Status.REQUIRES_PAYMENT_METHOD: _CANCELED,
                Status.REQUIRES_CAPTURE: _CANCELED,
                Status.REQUIRES_CONFIRMATION: _CANCELED,
                Status.REQUIRES_ACTION: _CANCELED,
                Status.PROCESSING: _CANCELED,
            }
        ),
    }
)

_REFUSALS = MappingProxyType(
    {
        Verb.CONFIRM: "You cannot confirm this PaymentIntent because it has a status of {status}. "
        "Only a PaymentIntent with one of the following statuses may be confirmed: {legal}.",
        Verb.CAPTURE: "This PaymentIntent could not be captured because it has a status of {status}. "
        "Only a PaymentIntent with one of the following statuses may be captured: {legal}.",
        Verb.CANCEL: "You cannot cancel this PaymentIntent because it has a status of {status}. "
        "Only a PaymentIntent with one of the following statuses may be canceled: {legal}.",
    }
)


@dataclass(frozen=True, slots=True)
class Decline:
    """The issuer's last refusal, kept on the intent until it is confirmed again."""

    code: str
    decline_code: str
    message: str
    charge: str
    payment_method: str
    advice_code: str | None = None


@dataclass(frozen=True, slots=True)
class Charge:
    """One attempt at the card: held, captured or failed. Amounts are in minor units, times in Unix seconds."""

    id: str
    payment_intent: str
    amount: int
    currency: str
    created: int
    payment_method: str
    metadata: dict[str, str]
    customer: str | None = None
    amount_captured: int = 0
    captured: bool = False
    released: bool = False
    capture_before: int | None = None
    decline: Decline | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """One PaymentIntent. Amounts are in minor units, times in Unix seconds."""

    id: str
    client_secret: str
    amount: int
    currency: str
    created: int
    status: Status
    capture_method: str
    confirmation_method: str
    metadata: dict[str, str]
    payment_method_types: list[str]
    automatic: bool
    allowed_payment_method_types: list[str] | None = None
    allow_redirects: str | None = None
    payment_method: str | None = None
    customer: str | None = None
    description: str | None = None
    receipt_email: str | None = None
    statement_descriptor: str | None = None
    statement_descriptor_suffix: str | None = None
    amount_capturable: int = 0
    amount_received: int = 0
    canceled_at: int | None = None
    cancellation_reason: str | None = None
    latest_charge: str | None = None
    last_error: Decline | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What one call did: the intent after it, and the charge it made or changed."""

    intent: Intent
    charge: Charge | None = None


class WrongStateError(StripeError):
    """400 `payment_intent_unexpected_state`; the edge adds the intent as it stands."""

    def __init__(self, intent: Intent, message: str) -> None:
        code = "payment_intent_unexpected_state"
        super().__init__(400, "invalid_request_error", message, executed=True, code=code)
        self.intent = intent


def confirm(intent: Intent, card: Card | None, *, now: int, new_id: Callable[[str], str], return_url: str | None) -> Change:
    """Put the amount to the card: hold it, capture it at once, or come back declined."""
    _require(intent, Verb.CONFIRM)
    if card is None:
        raise WrongStateError(
            intent,
            "You cannot confirm this PaymentIntent because it's missing a payment method. "
            "You can either update the PaymentIntent with a payment method and then confirm it again, "
            "or confirm it again directly with a payment method.",
        )
    _require_return_url(intent, return_url)
    attempt = Charge(
        id=new_id("ch"),
        payment_intent=intent.id,
        amount=intent.amount,
        currency=intent.currency,
        created=now,
        payment_method=card.payment_method,
        metadata=intent.metadata,
        customer=intent.customer,
    )
    if card.decline_code is not None:
        return _declined(intent, attempt, card, card.decline_code)
    return _accepted(intent, attempt, now)


def capture(intent: Intent, charge: Charge, amount: int | None, metadata: Mapping[str, str]) -> Change:
    """Take the held amount, or a part of it; the rest is released (Stripe's single capture)."""
    _require(intent, Verb.CAPTURE)
    taken = intent.amount_capturable if amount is None else amount
    if taken > intent.amount_capturable:
        message = f"The amount_to_capture {taken} is greater than the amount_capturable {intent.amount_capturable}."
        raise StripeError(
            400,
            "invalid_request_error",
            message,
            executed=True,
            code="amount_too_large",
            param="amount_to_capture",
        )
    after = replace(
        _moved(intent, Verb.CAPTURE, Status.SUCCEEDED),
        amount_capturable=0,
        amount_received=taken,
        metadata={**intent.metadata, **metadata},
    )
    return Change(after, replace(charge, captured=True, amount_captured=taken))


def cancel(intent: Intent, charge: Charge | None, *, reason: str | None, now: int) -> Change:
    """End the intent; an amount still held is released."""
    _require(intent, Verb.CANCEL)
    after = replace(
        _moved(intent, Verb.CANCEL, Status.CANCELED),
        amount_capturable=0,
        canceled_at=now,
        cancellation_reason=reason,
    )
    held = charge is not None and intent.status is Status.REQUIRES_CAPTURE
    return Change(after, replace(charge, released=True) if charge is not None and held else None)


def _accepted(intent: Intent, attempt: Charge, now: int) -> Change:
    held = replace(intent, payment_method=attempt.payment_method, latest_charge=attempt.id, last_error=None)
    if intent.capture_method == "manual":
        after = replace(_moved(held, Verb.CONFIRM, Status.REQUIRES_CAPTURE), amount_capturable=intent.amount)
        return Change(after, replace(attempt, capture_before=now + HOLD_SECONDS))
    after = replace(_moved(held, Verb.CONFIRM, Status.SUCCEEDED), amount_received=intent.amount)
    return Change(after, replace(attempt, captured=True, amount_captured=intent.amount))


def _declined(intent: Intent, attempt: Charge, card: Card, decline_code: str) -> Change:
    decline = Decline(
        code=card.error_code,
        decline_code=decline_code,
        message=card.message,
        charge=attempt.id,
        payment_method=card.payment_method,
        advice_code=card.advice_code,
    )
    after = replace(
        _moved(intent, Verb.CONFIRM, Status.REQUIRES_PAYMENT_METHOD),
        payment_method=None,
        latest_charge=attempt.id,
        last_error=decline,
    )
    return Change(after, replace(attempt, decline=decline))


def _require(intent: Intent, verb: Verb) -> None:
    legal = TRANSITIONS[verb]
    if intent.status not in legal:
        raise WrongStateError(intent, _REFUSALS[verb].format(status=intent.status, legal=", ".join(legal)))


def _require_return_url(intent: Intent, return_url: str | None) -> None:
    """Refuse, as Stripe does, what would work only as long as no dashboard setting adds a redirecting method."""
    if intent.automatic and intent.allow_redirects != "never" and return_url is None:
        message = (
            "This PaymentIntent is configured to accept payment methods enabled in your Dashboard. "
            "Because some of these payment methods might redirect your customer off of your page, you must provide "
            "a `return_url`. If you don't want to accept redirect-based payment methods, set "
            "`automatic_payment_methods[enabled]` to `true` and `automatic_payment_methods[allow_redirects]` to "
            "`never` when creating Setup Intents and Payment Intents."
        )
        raise StripeError(400, "invalid_request_error", message, executed=True, param="return_url")


def _moved(intent: Intent, verb: Verb, to: Status) -> Intent:
    if to not in TRANSITIONS[verb][intent.status]:
        message = f"{verb} may not lead from {intent.status} to {to}"
        raise ValueError(message)
    return replace(intent, status=to)
