"""Stripe's error body as one exception.

`executed` is the line Stripe's idempotency layer draws: a request refused before its endpoint began (bad parameters,
no key, too many requests) leaves no stored answer; whatever came after does.
"""

from __future__ import annotations

from typing import Any

CARD_ERROR, CONFLICT, INTERNAL = 402, 409, 500
DOCS = "https://stripe.com/docs/error-codes/"


class StripeError(Exception):
    """An answer other than 2xx: the HTTP status and Stripe's `error` object."""

    def __init__(self, status: int, kind: str, message: str, *, executed: bool = False, **members: object) -> None:
        super().__init__(message)
        self.status = status
        self.executed = executed
        self.headers: dict[str, str] = {}
        self.members: dict[str, Any] = {"type": kind, "message": message, **members}
        if code := members.get("code"):
            self.members["doc_url"] = DOCS + str(code).replace("_", "-")

    def body(self) -> dict[str, Any]:
        """Return the JSON body, members without a value left out as Stripe does."""
        return {"error": {name: value for name, value in self.members.items() if value is not None}}


def invalid(message: str, *, code: str | None = None, param: str | None = None) -> StripeError:
    """Refuse a parameter before anything ran: 400, not stored under the idempotency key."""
    return StripeError(400, "invalid_request_error", message, code=code, param=param)


def missing_object(kind: str, object_id: str, *, param: str, status: int = 404) -> StripeError:
    """Name an object this account does not have: 404 for the path's own id, 400 for one named in a parameter."""
    message = f"No such {kind}: '{object_id}'"
    return StripeError(status, "invalid_request_error", message, executed=True, code="resource_missing", param=param)


def unknown_path(method: str, path: str) -> StripeError:
    """Refuse a method and path that this fake does not serve."""
    return StripeError(404, "invalid_request_error", f"Unrecognized request URL ({method}: {path}).")


def unauthorized(message: str) -> StripeError:
    """Refuse a request without a usable key: 401, never stored."""
    return StripeError(401, "invalid_request_error", message)


def key_in_use(key: str) -> StripeError:
    """Refuse the second of two concurrent requests under one key: 409, and a retry is welcome."""
    message = f"There is currently another in-progress request using this Idempotent Key ({key}). Please try again later."
    return StripeError(409, "invalid_request_error", message, code="idempotency_key_in_use")


def secret_key_required() -> StripeError:
    """Refuse a publishable key where it has no business: 401, never stored."""
    message = "This API call cannot be made with a publishable API key. Please use a secret API key."
    return StripeError(401, "invalid_request_error", message, code="secret_key_required")


def too_many_requests(reason: str) -> StripeError:
    """Refuse by the rate limiter, which stands before the idempotency layer: 429, nothing happened."""
    message = "Request rate limit exceeded. Slow down and retry with exponential back-off."
    error = StripeError(429, "invalid_request_error", message, code="rate_limit")
    error.headers["stripe-rate-limited-reason"] = reason
    return error


def internal() -> StripeError:
    """Fail as Stripe fails: a 500 that says nothing about what happened and is stored under the key."""
    return StripeError(500, "api_error", "An unknown error occurred.", executed=True)
