"""Stripe's JSON for our intents and charges, in the shape of API version 2026-10-28.endive."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from deploy.local.fake_stripe.cards import CARDS
from deploy.local.fake_stripe.intents import Charge, Decline, Intent

DEFAULT_VERSION = "2026-08-26.dahlia"
"""What a request without `Stripe-Version` is answered as: the last that still takes `payment_method_types`."""
Json = dict[str, Any]


def intent_object(intent: Intent, charge: Charge | None = None) -> Json:
    """Render a PaymentIntent; with `charge` given, `latest_charge` is expanded."""
    return {
        "id": intent.id,
        "object": "payment_intent",
        "allowed_payment_method_types": intent.allowed_payment_method_types,
        "amount": intent.amount,
        "amount_capturable": intent.amount_capturable,
        "amount_details": {"tip": {}},
        "amount_received": intent.amount_received,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": _automatic(intent),
        "canceled_at": intent.canceled_at,
        "cancellation_reason": intent.cancellation_reason,
        "capture_method": intent.capture_method,
        "client_secret": intent.client_secret,
        "confirmation_method": intent.confirmation_method,
        "created": intent.created,
        "currency": intent.currency,
        "customer": intent.customer,
        "customer_account": None,
        "description": intent.description,
        "excluded_payment_method_types": None,
        "last_payment_error": None if intent.last_error is None else decline_members(intent.last_error),
        "latest_charge": intent.latest_charge if charge is None else charge_object(charge),
        "livemode": False,
        "metadata": intent.metadata,
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": intent.payment_method,
        "payment_method_configuration_details": None,
        "payment_method_options": _CARD_OPTIONS,
        "payment_method_types": intent.payment_method_types,
        "processing": None,
        "receipt_email": intent.receipt_email,
        "review": None,
        "setup_future_usage": None,
        "shipping": None,
        "source": None,
        "statement_descriptor": intent.statement_descriptor,
        "statement_descriptor_suffix": intent.statement_descriptor_suffix,
        "status": intent.status,
        "transfer_data": None,
        "transfer_group": None,
    }


def charge_object(charge: Charge, intent: Intent | None = None) -> Json:
    """Render a Charge; with `intent` given, `payment_intent` is expanded."""
    failed = charge.decline is not None
    return {
        "id": charge.id,
        "object": "charge",
        "amount": charge.amount,
        "amount_captured": charge.amount_captured,
        "amount_refunded": charge.amount if charge.released else 0,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": None,
        "billing_details": _NO_BILLING_DETAILS,
        "calculated_statement_descriptor": None if failed else "CARTWRIGHT",
        "captured": charge.captured,
        "created": charge.created,
        "currency": charge.currency,
        "customer": charge.customer,
        "description": None,
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": charge.decline.code if charge.decline else None,
        "failure_message": charge.decline.message if charge.decline else None,
        "fraud_details": {},
        "livemode": False,
        "metadata": charge.metadata,
        "on_behalf_of": None,
        "outcome": _outcome(charge.decline),
        "paid": not failed,
        "payment_intent": charge.payment_intent if intent is None else intent_object(intent),
        "payment_method": charge.payment_method,
        "payment_method_details": _payment_method_details(charge),
        "receipt_email": None,
        "receipt_number": None,
        "receipt_url": None,
        "refunded": charge.released,
        "review": None,
        "shipping": None,
        "source_transfer": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "failed" if failed else "succeeded",
        "transfer_data": None,
        "transfer_group": None,
    }


def declined_body(decline: Decline, intent: Intent) -> Json:
    """Render the body of a 402: the decline, and the intent returned to `requires_payment_method`."""
    return {"error": {**decline_members(decline), "payment_intent": intent_object(intent)}}


def decline_members(decline: Decline) -> Json:
    """Render a decline as an `error` and as `last_payment_error`."""
    return {
        "advice_code": decline.advice_code,
        "charge": decline.charge,
        "code": decline.code,
        "decline_code": decline.decline_code,
        "doc_url": "https://stripe.com/docs/error-codes/card-declined",
        "message": decline.message,
        "payment_method": _payment_method(decline.payment_method),
        "type": "card_error",
    }


def list_object(url: str, rows: list[Json], *, has_more: bool) -> Json:
    """Render a list as every Stripe list is rendered."""
    return {"object": "list", "data": rows, "has_more": has_more, "url": url}


def intent_view(expand: Collection[str], charge_of: Callable[[Intent], Charge | None]) -> Callable[[Intent], Json]:
    """Return how to render intents for a request that expands `expand`."""
    if "latest_charge" in expand:
        return lambda intent: intent_object(intent, charge_of(intent))
    return intent_object


_CARD_OPTIONS = {"card": {"installments": None, "mandate_options": None, "network": None, "request_three_d_secure": "automatic"}}
_NO_BILLING_DETAILS = {
    "address": {"city": None, "country": None, "line1": None, "line2": None, "postal_code": None, "state": None},
    "email": None,
    "name": None,
    "phone": None,
    "tax_id": None,
}
_CHECKS = {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"}


def _automatic(intent: Intent) -> Json | None:
    if not intent.automatic:
        return None
    return {"allow_redirects": intent.allow_redirects or "always", "enabled": True}


def _card(payment_method: str) -> Json:
    card = CARDS[payment_method]
    return {
        "brand": card.brand,
        "checks": _CHECKS,
        "country": "US",
        "exp_month": 12,
        "exp_year": 2040,
        "funding": "credit",
        "last4": card.last4,
        "network": card.brand,
        "three_d_secure": None,
        "wallet": None,
    }


def _payment_method(payment_method: str) -> Json:
    return {
        "id": payment_method,
        "object": "payment_method",
        "card": _card(payment_method),
        "customer": None,
        "livemode": False,
        "metadata": {},
        "type": "card",
    }


def _payment_method_details(charge: Charge) -> Json:
    card = _card(charge.payment_method) | {"amount_authorized": None if charge.decline else charge.amount}
    if charge.capture_before is not None:
        card["capture_before"] = charge.capture_before
    return {"card": card, "type": "card"}


def _outcome(decline: Decline | None) -> Json:
    return {
        "advice_code": decline.advice_code if decline else None,
        "network_status": "declined_by_network" if decline else "approved_by_network",
        "reason": decline.decline_code if decline else None,
        "risk_level": "normal",
        "seller_message": "The bank did not return any further details with this decline." if decline else "Payment complete.",
        "type": "issuer_declined" if decline else "authorized",
    }
