"""The PaymentIntent machine: pure functions from one frozen intent to the next.

Time and ids are arguments; the fake's books apply what these functions return. The states and the legal moves are
Stripe's (docs.stripe.com/payments/paymentintents/lifecycle).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from deploy.local.fake_stripe import balance, disputes
from deploy.local.fake_stripe.cards import CARDS, Card
from deploy.local.fake_stripe.errors import StripeError
from deploy.local.fake_stripe.records import Challenge, Change, Charge, Decline, Intent, Status

HOLD_SECONDS = 7 * 24 * 3600
"""How long an authorization holds; the truth for a client is the charge's `capture_before`."""

MOST_CAPTURES = 50


class Verb(StrEnum):
    """What moves an intent: the client's requests, the cardholder's authentication, and time."""

    CONFIRM = "confirm"
    AUTHENTICATE = "authenticate"
    CAPTURE = "capture"
    CANCEL = "cancel"
    EXPIRE = "expire"


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
        Verb.AUTHENTICATE: MappingProxyType(
            {
                Status.REQUIRES_ACTION: frozenset(
                    {
                        Status.REQUIRES_PAYMENT_METHOD,  # not authenticated, or declined after it
                        Status.REQUIRES_CONFIRMATION,  # with manual confirmation the server has the last word
                        Status.REQUIRES_CAPTURE,
                        Status.SUCCEEDED,
                    }
                )
            }
        ),
        Verb.CAPTURE: MappingProxyType({Status.REQUIRES_CAPTURE: frozenset({Status.REQUIRES_CAPTURE, Status.SUCCEEDED})}),
        Verb.CANCEL: MappingProxyType(
            {
                Status.REQUIRES_PAYMENT_METHOD: _CANCELED,
                Status.REQUIRES_CAPTURE: _CANCELED,
                Status.REQUIRES_CONFIRMATION: _CANCELED,
                Status.REQUIRES_ACTION: _CANCELED,
                Status.PROCESSING: _CANCELED,
            }
        ),
        Verb.EXPIRE: MappingProxyType({Status.REQUIRES_CAPTURE: frozenset({Status.CANCELED, Status.SUCCEEDED})}),
    }
)

_REFUSALS = MappingProxyType(
    {
        Verb.CONFIRM: "You cannot confirm this PaymentIntent because it has a status of {status}. "
        "Only a PaymentIntent with one of the following statuses may be confirmed: {legal}.",
        Verb.AUTHENTICATE: "This PaymentIntent has a status of {status}; there is nothing to authenticate.",
        Verb.CAPTURE: "This PaymentIntent could not be captured because it has a status of {status}. "
        "Only a PaymentIntent with one of the following statuses may be captured: {legal}.",
        Verb.CANCEL: "You cannot cancel this PaymentIntent because it has a status of {status}. "
        "Only a PaymentIntent with one of the following statuses may be canceled: {legal}.",
        Verb.EXPIRE: "This PaymentIntent has a status of {status}; there is no hold to expire.",
    }
)
_CLOSED = ("charge.captured", "payment_intent.succeeded")
_PARTLY = ("charge.updated", "payment_intent.amount_capturable_updated")
_NOT_AUTHENTICATED = (
    "The provided PaymentMethod has failed authentication. You can provide payment_method_data or a new PaymentMethod "
    "to attempt to fulfill this PaymentIntent again."
)


class WrongStateError(StripeError):
    """400 `payment_intent_unexpected_state`; the edge adds the intent as it stands."""

    def __init__(self, intent: Intent, message: str) -> None:
        code = "payment_intent_unexpected_state"
        super().__init__(400, "invalid_request_error", message, executed=True, code=code)
        self.intent = intent


@dataclass(frozen=True, slots=True)
class Occasion:
    """The circumstances of a confirmation: when, where the buyer returns to, who is there, where a challenge is held."""

    now: int
    new_id: Callable[[str], str]
    return_url: str | None = None
    off_session: bool = False
    refuse_challenge: bool = False
    page_of: Callable[[Intent], str] = lambda intent: intent.id


def confirm(intent: Intent, card: Card | None, occasion: Occasion) -> Change:
    """Put the amount to the card: hold it, capture it at once, ask for authentication, or come back declined."""
    _require(intent, Verb.CONFIRM)
    if card is None:
        raise WrongStateError(
            intent,
            "You cannot confirm this PaymentIntent because it's missing a payment method. "
            "You can either update the PaymentIntent with a payment method and then confirm it again, "
            "or confirm it again directly with a payment method.",
        )
    _require_return_url(intent, occasion.return_url)
    if _must_authenticate(intent, card, off_session=occasion.off_session):
        if occasion.off_session or occasion.refuse_challenge:
            refused = _without_authentication(card, off_session=occasion.off_session)
            return _declined(intent, _attempt(intent, card, occasion), card, Verb.CONFIRM, refused)
        return _challenged(intent, card, occasion)
    return _put_to_issuer(intent, card, Verb.CONFIRM, occasion)


def authenticate(intent: Intent, *, passed: bool, occasion: Occasion) -> Change:
    """Let the cardholder pass or fail the challenge; who passes is charged, unless the server is to confirm again."""
    _require(intent, Verb.AUTHENTICATE)
    card = CARDS[intent.payment_method or ""]
    if not passed:
        error = Decline(
            code="payment_intent_authentication_failure",
            decline_code=None,
            message=_NOT_AUTHENTICATED,
            charge=None,
            payment_method=card.payment_method,
            kind="invalid_request_error",
        )
        to = Status.REQUIRES_PAYMENT_METHOD
        back = _moved(intent, Verb.AUTHENTICATE, to, payment_method=None, last_error=error, challenge=None)
        return Change(back, events=("payment_intent.payment_failed",))
    if intent.confirmation_method == "manual":
        to = Status.REQUIRES_CONFIRMATION
        return Change(_moved(intent, Verb.AUTHENTICATE, to, challenge=None, authenticated=True))
    return _put_to_issuer(replace(intent, challenge=None, authenticated=True), card, Verb.AUTHENTICATE, occasion)


def capture(
    intent: Intent,
    charge: Charge,
    amount: int | None,
    metadata: Mapping[str, str],
    *,
    final: bool = True,
    now: int,
    new_id: Callable[[str], str],
) -> Change:
    """Take the held amount, or a part of it; the rest is released unless the capture is not the final one."""
    _require(intent, Verb.CAPTURE)
    taken = intent.amount_capturable if amount is None else amount
    _require_capturable(intent, charge, taken, final=final)
    rest = intent.amount_capturable - taken
    closes = final or not rest
    after = _moved(
        intent,
        Verb.CAPTURE,
        Status.SUCCEEDED if closes else Status.REQUIRES_CAPTURE,
        amount_capturable=0 if closes else rest,
        amount_received=intent.amount_received + taken,
        metadata={**intent.metadata, **metadata} if metadata else intent.metadata,
    )
    return _taken(after, charge, taken, closes=closes, now=now, new_id=new_id)


def cancel(intent: Intent, *, reason: str | None, now: int) -> Change:
    """End the intent; an amount still held is released, which its charge tells nothing of."""
    _require(intent, Verb.CANCEL)
    if intent.amount_received:
        raise WrongStateError(
            intent,
            "You cannot cancel this PaymentIntent because a part of it was captured. "
            "Capture an amount of 0 as the final capture to release the rest.",
        )
    after = _moved(
        intent,
        Verb.CANCEL,
        Status.CANCELED,
        amount_capturable=0,
        canceled_at=now,
        cancellation_reason=reason,
        challenge=None,
    )
    return Change(after, events=("payment_intent.canceled",))


def expire(intent: Intent, charge: Charge, *, now: int) -> Change:
    """Let the hold lapse: canceled, or closed with what was captured of it."""
    _require(intent, Verb.EXPIRE)
    if intent.amount_received:
        after = _moved(intent, Verb.EXPIRE, Status.SUCCEEDED, amount_capturable=0)
        return Change(after, replace(charge, captured=True), events=("charge.captured", "payment_intent.succeeded"))
    after = _moved(
        intent,
        Verb.EXPIRE,
        Status.CANCELED,
        amount_capturable=0,
        canceled_at=now,
        cancellation_reason="expired",
    )
    return Change(after, charge, events=("charge.expired", "payment_intent.canceled"))


def require_open(intent: Intent) -> None:
    """Refuse, as Stripe does, to change the amount of what was put to the card, or is over."""
    legal = TRANSITIONS[Verb.CONFIRM]
    if intent.status not in legal:
        message = (
            f"This PaymentIntent's amount could not be updated because it has a status of {intent.status}. "
            f"You may only update the amount of a PaymentIntent with one of the following statuses: {', '.join(legal)}."
        )
        raise WrongStateError(intent, message)


def _must_authenticate(intent: Intent, card: Card, *, off_session: bool) -> bool:
    if intent.authenticated or card.challenge == "never":
        return False
    if card.challenge == "on-session":  # set up for payments without the buyer, who is asked when there
        return not off_session
    return card.challenge == "always" or intent.request_challenge in {"any", "challenge"}


def _challenged(intent: Intent, card: Card, occasion: Occasion) -> Change:
    after = _moved(
        intent,
        Verb.CONFIRM,
        Status.REQUIRES_ACTION,
        payment_method=card.payment_method,
        challenge=Challenge(occasion.page_of(intent), occasion.return_url),
        last_error=None,
    )
    return Change(after, events=("payment_intent.requires_action",))


def _attempt(intent: Intent, card: Card, occasion: Occasion, *, capture_before: int | None = None) -> Charge:
    return Charge(
        id=occasion.new_id("ch"),
        payment_intent=intent.id,
        amount=intent.amount,
        currency=intent.currency,
        created=occasion.now,
        payment_method=card.payment_method,
        metadata=intent.metadata,
        customer=intent.customer,
        multicapture=intent.multicapture,
        authenticated=intent.authenticated,
        capture_before=capture_before,
    )


def _put_to_issuer(intent: Intent, card: Card, verb: Verb, occasion: Occasion) -> Change:
    if card.error_code is not None:
        decline = Decline(
            code=card.error_code,
            decline_code=card.decline_code,
            message=card.message,
            charge=None,
            payment_method=card.payment_method,
            advice_code=card.advice_code,
            param=card.param,
            blocked=card.blocked,
        )
        return _declined(intent, _attempt(intent, card, occasion), card, verb, decline)
    held = intent.capture_method == "manual"
    attempt = _attempt(intent, card, occasion, capture_before=occasion.now + HOLD_SECONDS if held else None)
    after = _moved(
        intent,
        verb,
        Status.REQUIRES_CAPTURE if held else Status.SUCCEEDED,
        payment_method=card.payment_method,
        latest_charge=attempt.id,
        last_error=None,
        amount_capturable=intent.amount if held else 0,
        amount_received=0 if held else intent.amount,
    )
    if held:
        return Change(after, attempt, events=("charge.succeeded", "payment_intent.amount_capturable_updated"))
    taken = _taken(after, attempt, intent.amount, closes=True, now=occasion.now, new_id=occasion.new_id)
    return replace(taken, events=("charge.succeeded", *taken.events[1:]))


def _declined(intent: Intent, attempt: Charge, card: Card, verb: Verb, decline: Decline) -> Change:
    decline = replace(decline, charge=attempt.id, payment_method=card.payment_method)
    after = _moved(
        intent,
        verb,
        Status.REQUIRES_PAYMENT_METHOD,
        payment_method=None,
        latest_charge=attempt.id,
        last_error=decline,
        challenge=None,
        authenticated=False,
    )
    events = ("charge.failed", "payment_intent.payment_failed")
    return Change(after, replace(attempt, decline=decline), events=events)


def _without_authentication(card: Card, *, off_session: bool) -> Decline:
    return Decline(
        code="authentication_required",
        decline_code="authentication_required" if off_session else "authentication_not_handled",
        message="Your card was declined. This transaction requires authentication.",
        charge=None,
        payment_method=card.payment_method,
    )


def _taken(intent: Intent, charge: Charge, amount: int, *, closes: bool, now: int, new_id: Callable[[str], str]) -> Change:
    """Book a capture, and open the disputes that the card is there for once it is closed."""
    transactions = (balance.captured(charge, amount, now=now, new_id=new_id),) if amount else ()
    booked = replace(
        charge,
        captured=closes,
        amount_captured=charge.amount_captured + amount,
        capture_count=charge.capture_count + 1,
        balance_transaction=transactions[0].id if transactions else charge.balance_transaction,
    )
    change = Change(intent, booked, transactions=transactions, events=_CLOSED if closes else _PARTLY)
    card = CARDS[charge.payment_method]
    return disputes.opened_by_card(change, card, now=now, new_id=new_id) if card.disputes and closes else change


def _require(intent: Intent, verb: Verb) -> None:
    legal = TRANSITIONS[verb]
    if intent.status not in legal:
        raise WrongStateError(intent, _REFUSALS[verb].format(status=intent.status, legal=", ".join(legal)))


def _require_capturable(intent: Intent, charge: Charge, amount: int, *, final: bool) -> None:
    param, code = "amount_to_capture", "amount_too_large"
    if amount > intent.amount_capturable:
        message = f"The amount_to_capture {amount} is greater than the amount_capturable {intent.amount_capturable}."
    elif not final and not charge.multicapture:
        param, code = "final_capture", "parameter_invalid_empty"
        message = "The `final_capture` parameter can be false only if multicapture is available for this PaymentIntent."
    elif charge.capture_count >= MOST_CAPTURES:
        message = f"A PaymentIntent can be captured up to {MOST_CAPTURES} times."
    elif not amount and not final:
        code, message = "parameter_invalid_integer", "An amount of 0 can only be the final capture."
    else:
        return
    raise StripeError(400, "invalid_request_error", message, executed=True, code=code, param=param)


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


def _moved(intent: Intent, verb: Verb, to: Status, **changes: Any) -> Intent:
    """Return the intent in its next state, with what else changes: one copy, since copies are what a call costs most."""
    if to not in TRANSITIONS[verb][intent.status]:
        message = f"{verb} may not lead from {intent.status} to {to}"
        raise ValueError(message)
    return replace(intent, status=to, **changes)
