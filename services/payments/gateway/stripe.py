"""Stripe, behind the gateway's Protocol. Stripe's words stay inside this file."""

from __future__ import annotations

from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, NotRequired, TypedDict, cast
from urllib.parse import quote

import stripe
from aiohttp import ClientTimeout

from services.payments.domain.outcome import Declined, IntentStatus, Outcome, Rejected, Succeeded, Throttled, Unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stripe.params import (
        PaymentIntentCaptureParams,
        PaymentIntentConfirmParams,
        PaymentIntentCreateParams,
    )

    from services.payments.gateway.protocol import Capture

_STATUSES = MappingProxyType(
    {
        "requires_payment_method": IntentStatus.NEEDS_METHOD,
        "requires_confirmation": IntentStatus.NEEDS_CONFIRMATION,
        "requires_action": IntentStatus.NEEDS_ACTION,
        "processing": IntentStatus.PROCESSING,
        "requires_capture": IntentStatus.AUTHORIZED,
        "succeeded": IntentStatus.CAPTURED,
        "canceled": IntentStatus.CANCELED,
    }
)
_REJECTIONS = MappingProxyType(
    {
        "payment_intent_unexpected_state": "wrong-state",
        "resource_missing": "not-found",
        "amount_too_small": "amount-out-of-range",
        "amount_too_large": "amount-out-of-range",
        "parameter_invalid_integer": "amount-out-of-range",
    }
)
_INTENTS = "/v1/payment_intents"
_DEFINITE = frozenset({400, 401, 403, 404})


class _Charge(TypedDict):
    """What we read of a charge."""

    id: str
    payment_method_details: dict[str, dict[str, int]]


class _Problem(TypedDict):
    """What we read of a decline."""

    code: NotRequired[str | None]
    decline_code: NotRequired[str | None]


class _Intent(TypedDict):
    """What we read of a PaymentIntent."""

    id: str
    status: str
    amount: int
    amount_capturable: int
    amount_received: int
    currency: str
    client_secret: NotRequired[str | None]
    last_payment_error: NotRequired[_Problem | None]
    latest_charge: NotRequired[_Charge | str | None]
    next_action: NotRequired[dict[str, dict[str, str]] | None]


class StripeGateway:
    """Stripe through its official SDK on aiohttp, which costs a sixth of the SDK's default transport in CPU.

    The SDK never retries by itself here: a retry belongs to the operation log, which knows the key's age. The HTTP
    session is made by the first call, inside the running event loop; `close` it in the same loop.
    """

    def __init__(self, api_key: str, api_base: str, *, timeout_seconds: float = 10.0) -> None:
        """Prepare a client for the account of `api_key`; `api_base` has no `/v1`."""
        stripe.enable_telemetry = False  # otherwise each call reports the duration of the one before
        self._transport = stripe.AIOHTTPClient(timeout=ClientTimeout(total=timeout_seconds))
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": api_base},
            http_client=self._transport,
            max_network_retries=0,
        )

    async def create_intent(
        self, key: str, *, amount_minor: int, currency: str, method: str, capture: Capture, metadata: Mapping[str, str]
    ) -> Outcome:
        """Create a PaymentIntent without redirecting methods, so that confirming needs no return address."""
        params: PaymentIntentCreateParams = {
            "amount": amount_minor,
            "currency": currency.lower(),
            "capture_method": capture,
            "payment_method": method,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            "metadata": dict(metadata),
        }
        return await self._post(key, _INTENTS, params)

    async def confirm_intent(self, key: str, intent_id: str, method: str) -> Outcome:
        """Confirm, asking for the charge along with it: there stands when the authorization lapses."""
        params: PaymentIntentConfirmParams = {"payment_method": method, "expand": ["latest_charge"]}
        return await self._post(key, _path(intent_id, "/confirm"), params)

    async def capture_intent(self, key: str, intent_id: str, amount_minor: int | None = None) -> Outcome:
        """Capture the whole authorization, or `amount_minor` of it."""
        params: PaymentIntentCaptureParams = {}
        if amount_minor is not None:
            params["amount_to_capture"] = amount_minor
        return await self._post(key, _path(intent_id, "/capture"), params)

    async def cancel_intent(self, key: str, intent_id: str) -> Outcome:
        """Cancel the PaymentIntent, releasing what it holds."""
        return await self._post(key, _path(intent_id, "/cancel"), {})

    async def retrieve_intent(self, intent_id: str) -> Outcome:
        """Read the PaymentIntent; one that came back from a decline is reported as `Declined`."""
        return await self._outcome("get", _path(intent_id), expand=["latest_charge"])

    async def close(self) -> None:
        """Close the HTTP session."""
        await self._transport.close_async()  # type: ignore[no-untyped-call] # the SDK leaves it untyped

    async def _post(self, key: str, path: str, params: Mapping[str, object]) -> Outcome:
        return await self._outcome("post", path, **params, idempotency_key=key)

    async def _outcome(self, method: str, path: str, **params: object) -> Outcome:
        """Make one call and say in our words what came of it; cancellation alone passes through.

        The SDK's raw request leaves out its typed objects, whose construction is more than half of a call's CPU.
        """
        try:
            answer = await self._client.raw_request_async(method, path, **params)
            return _read(cast("_Intent", answer.data))
        except stripe.StripeError as error:
            return _failure(error)
        except Exception as error:  # noqa: BLE001 - the SDK lets transport errors through while it reads a body
            return Unknown(type(error).__name__)


def _path(intent_id: str, verb: str = "") -> str:
    return f"{_INTENTS}/{quote(intent_id, safe='')}{verb}"


def _read(answer: _Intent) -> Outcome:
    status = _STATUSES.get(answer["status"])
    if status is None:
        return Unknown(f"status {answer['status']}")
    problem = answer.get("last_payment_error")
    if status is IntentStatus.NEEDS_METHOD and problem is not None:
        return Declined(problem.get("decline_code") or problem.get("code") or "declined", answer["id"])
    charge = answer.get("latest_charge")
    return Succeeded(
        intent_id=answer["id"],
        status=status,
        amount_minor=answer["amount"],
        currency=answer["currency"],
        amount_capturable_minor=answer["amount_capturable"],
        amount_received_minor=answer["amount_received"],
        charge_id=charge["id"] if isinstance(charge, dict) else charge,
        expires_at=_expires_at(charge) if status is IntentStatus.AUTHORIZED else None,
        client_secret=answer.get("client_secret"),
        action_url=_action_url(answer),
    )


def _expires_at(charge: _Charge | str | None) -> datetime | None:
    if not isinstance(charge, dict):
        return None
    before = charge["payment_method_details"].get("card", {}).get("capture_before")
    return None if before is None else datetime.fromtimestamp(before, UTC)


def _action_url(answer: _Intent) -> str | None:
    action = answer.get("next_action") or {}
    redirect = action.get("redirect_to_url") or {}
    return redirect.get("url")


def _failure(error: stripe.StripeError) -> Outcome:
    """Sort an SDK error; only what Stripe documents as leaving no effect counts as definite."""
    detail = error.error
    if isinstance(error, stripe.CardError):
        intent = None if detail is None else detail.payment_intent
        decline_code = None if detail is None else detail.decline_code
        return Declined(decline_code or error.code or "declined", None if intent is None else intent.id)
    if isinstance(error, stripe.RateLimitError):
        return Throttled(_retry_after(error))
    if isinstance(error, stripe.IdempotencyError):
        # The first request under this key may well have moved money: nobody may take this for a clean failure.
        return Unknown("key-used-for-another-request")
    if error.http_status in _DEFINITE:
        code = error.code or (None if detail is None else detail.code)
        return Rejected(_rejection(error.http_status, code), error.user_message or "")
    return Unknown(f"http-{error.http_status}" if error.http_status else type(error).__name__)


def _rejection(http_status: int | None, code: str | None) -> str:
    if http_status in {401, 403}:
        return "unauthorized"
    return _REJECTIONS.get(code or "", "invalid-request")


def _retry_after(error: stripe.StripeError) -> float | None:
    value = (error.headers or {}).get("Retry-After")
    try:
        return None if value is None else float(value)
    except ValueError:
        return None
