"""PaymentIntents and charges."""

from __future__ import annotations

from typing import Any

from deploy.local.fake_stripe.cards import CARDS
from deploy.local.fake_stripe.errors import DOCS
from deploy.local.fake_stripe.records import Challenge, Charge, Decline, Intent

Json = dict[str, Any]

CLIENT_MEMBERS = frozenset(
    {
        *("id", "object", "amount", "amount_details", "automatic_payment_methods", "canceled_at", "cancellation_reason"),
        *("capture_method", "client_secret", "confirmation_method", "created", "currency", "description"),
        *("last_payment_error", "livemode", "next_action", "payment_method", "payment_method_types", "processing"),
        *("receipt_email", "setup_future_usage", "shipping", "source", "status"),
    }
)
"""What a publishable key gets to see of an intent."""


def intent_object(intent: Intent) -> Json:
    """Render a PaymentIntent."""
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
        "latest_charge": intent.latest_charge,
        "livemode": False,
        "metadata": intent.metadata,
        "next_action": None if intent.challenge is None else _next_action(intent, intent.challenge),
        "on_behalf_of": None,
        "payment_method": intent.payment_method,
        "payment_method_configuration_details": None,
        "payment_method_options": _card_options(intent),
        "payment_method_types": intent.payment_method_types,
        "processing": None,
        "receipt_email": intent.receipt_email,
        "review": None,
        "setup_future_usage": None,
        "shipping": None,
        "statement_descriptor": intent.statement_descriptor,
        "statement_descriptor_suffix": intent.statement_descriptor_suffix,
        "status": intent.status,
        "transfer_data": None,
        "transfer_group": None,
    }


def charge_object(charge: Charge) -> Json:
    """Render a Charge; what was released and never taken is no refund (docs.stripe.com/changelog, 2025-03-31.basil)."""
    failed = charge.decline is not None
    return {
        "id": charge.id,
        "object": "charge",
        "amount": charge.amount,
        "amount_captured": charge.amount_captured,
        "amount_refunded": charge.amount_refunded,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": charge.balance_transaction,
        "billing_details": _NO_BILLING_DETAILS,
        "calculated_statement_descriptor": None if failed else "CARTWRIGHT",
        "captured": charge.captured,
        "created": charge.created,
        "currency": charge.currency,
        "customer": charge.customer,
        "description": charge.description,
        "disputed": charge.disputed,
        "failure_balance_transaction": None,
        "failure_code": charge.decline.code if charge.decline else None,
        "failure_message": charge.decline.message if charge.decline else None,
        "fraud_details": {},
        "livemode": False,
        "metadata": charge.metadata,
        "on_behalf_of": None,
        "outcome": _outcome(charge),
        "paid": not failed,
        "payment_intent": charge.payment_intent,
        "payment_method": charge.payment_method,
        "payment_method_details": _payment_method_details(charge),
        "receipt_email": charge.receipt_email,
        "receipt_number": None,
        "receipt_url": None,
        "refunded": 0 < charge.amount_refunded == charge.amount_captured,
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
    members = {
        "advice_code": decline.advice_code,
        "charge": decline.charge,
        "code": decline.code,
        "decline_code": decline.decline_code,
        "doc_url": DOCS + decline.code.replace("_", "-"),
        "message": decline.message,
        "param": decline.param,
        "payment_method": _payment_method(decline.payment_method),
        "type": decline.kind,
    }
    return {name: value for name, value in members.items() if value is not None}


_NO_BILLING_DETAILS = {
    "address": {"city": None, "country": None, "line1": None, "line2": None, "postal_code": None, "state": None},
    "email": None,
    "name": None,
    "phone": None,
    "tax_id": None,
}
_MADE_AT = 1_577_836_800
"""When the test cards' methods were made: they have always been there."""

_THREE_D_SECURE = {
    "authentication_flow": "challenge",
    "electronic_commerce_indicator": "05",
    "exemption_indicator": None,
    "result": "authenticated",
    "result_reason": None,
    "transaction_id": None,
    "version": "2.2.0",
}
_CHECKS = {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"}


def _automatic(intent: Intent) -> Json | None:
    if not intent.automatic:
        return None
    return {"allow_redirects": intent.allow_redirects or "always", "enabled": True}


def _next_action(intent: Intent, challenge: Challenge) -> Json:
    """Say how the challenge is held: by redirecting where there is a way back, else inside Stripe.js."""
    if challenge.return_url is not None:
        return {"redirect_to_url": {"return_url": challenge.return_url, "url": challenge.url}, "type": "redirect_to_url"}
    source = intent.id.replace("pi_", "src_")
    sdk = {"source": source, "stripe_js": challenge.url, "type": "three_d_secure_redirect"}
    return {"type": "use_stripe_sdk", "use_stripe_sdk": sdk}


def _card_options(intent: Intent) -> Json:
    card: Json = {
        "installments": None,
        "mandate_options": None,
        "network": None,
        "request_three_d_secure": intent.request_challenge or "automatic",
    }
    if intent.multicapture:
        card["request_multicapture"] = "if_available"
    return {"card": card}


def _card(payment_method: str) -> Json:
    card = CARDS[payment_method]
    return {
        "brand": card.brand,
        "checks": _CHECKS | dict(card.checks),
        "country": card.country,
        "exp_month": 12,
        "exp_year": 2040,
        "funding": card.funding,
        "last4": card.last4,
        "wallet": None,
    }


def _payment_method(payment_method: str) -> Json:
    return {
        "id": payment_method,
        "object": "payment_method",
        "billing_details": _NO_BILLING_DETAILS,
        "card": _card(payment_method)
        | {
            "networks": {"available": [CARDS[payment_method].brand], "preferred": None},
            "three_d_secure_usage": {"supported": CARDS[payment_method].challenge != "never"},
        },
        "created": _MADE_AT,
        "customer": None,
        "livemode": False,
        "metadata": {},
        "type": "card",
    }


def _payment_method_details(charge: Charge) -> Json:
    card = _card(charge.payment_method) | {
        "amount_authorized": None if charge.decline else charge.amount,
        "network": CARDS[charge.payment_method].brand,
        "three_d_secure": _THREE_D_SECURE if charge.authenticated else None,
    }
    if charge.capture_before is not None:
        card["capture_before"] = charge.capture_before
        card["multicapture"] = {"status": "available" if charge.multicapture else "unavailable"}
    return {"card": card, "type": "card"}


def _outcome(charge: Charge) -> Json:
    decline = charge.decline
    return {
        "advice_code": decline.advice_code if decline else None,
        "network_status": _network_status(decline),
        "reason": decline.decline_code if decline else None,
        "risk_level": CARDS[charge.payment_method].risk,
        "seller_message": "The bank did not return any further details with this decline." if decline else "Payment complete.",
        "type": _outcome_type(decline),
    }


def _network_status(decline: Decline | None) -> str:
    if decline is None:
        return "approved_by_network"
    return "not_sent_to_network" if decline.blocked else "declined_by_network"


def _outcome_type(decline: Decline | None) -> str:
    if decline is None:
        return "authorized"
    return "blocked" if decline.blocked else "issuer_declined"
