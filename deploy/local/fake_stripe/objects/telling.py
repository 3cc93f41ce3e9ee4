"""Events, the endpoints they are sent to, lists, and the account itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deploy.local.fake_stripe.history import Event, Subject
from deploy.local.fake_stripe.records import WebhookEndpoint

Json = dict[str, Any]

DEFAULT_VERSION = "2026-08-26.dahlia"
"""What a request without `Stripe-Version` is answered as: the last that still takes `payment_method_types`."""


def event_object(event: Event, render: Callable[[Subject], Json], *, version: str, pending_count: int, account: str = "") -> Json:
    """Render an Event with its object as it was when it happened; `account` is a connected account's id."""
    body: Json = {
        "id": event.id,
        "object": "event",
        "api_version": version,
        "created": event.created,
        "data": {"object": render(event.subject)},
        "livemode": False,
        "pending_webhooks": pending_count,
        "request": {"id": event.request_id, "idempotency_key": event.key},
        "type": event.type,
    }
    return body | {"account": account} if account else body


def endpoint_object(endpoint: WebhookEndpoint, *, with_secret: bool = False) -> Json:
    """Render a WebhookEndpoint; its secret is shown once, when it is made."""
    body: Json = {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "api_version": endpoint.api_version,
        "application": None,
        "created": endpoint.created,
        "description": endpoint.description,
        "enabled_events": list(endpoint.enabled_events),
        "livemode": False,
        "metadata": endpoint.metadata,
        "status": "enabled" if endpoint.enabled else "disabled",
        "url": endpoint.url,
    }
    return body | {"secret": endpoint.secrets[0]} if with_secret else body


def deleted_object(kind: str, object_id: str) -> Json:
    """Render what is left of a deleted object."""
    return {"id": object_id, "object": kind, "deleted": True}


def list_object(url: str, rows: list[Json], *, has_more: bool) -> Json:
    """Render a list as every Stripe list is rendered."""
    return {"object": "list", "data": rows, "has_more": has_more, "url": url}


def account_object(account_id: str) -> Json:
    """Render the account that an API key opens."""
    return {
        "id": account_id,
        "object": "account",
        "business_type": "company",
        "capabilities": {"card_payments": "active", "transfers": "active"},
        "charges_enabled": True,
        "country": "GB",
        "default_currency": "gbp",
        "details_submitted": True,
        "email": None,
        "metadata": {},
        "payouts_enabled": True,
        "type": "standard",
    }
