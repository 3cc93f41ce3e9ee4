"""Stripe's rate limits, off until they are set over `/_control/limits`: a token bucket per account and per endpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deploy.local.fake_stripe.errors import too_many_requests
from libs.common.buckets import TokenBucket


class LimitError(ValueError):
    """The limits cannot be read; the message names the member."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests a second that an account may make in all, and of each endpoint; None is no limit."""

    account_per_second: float | None = None
    endpoint_per_second: float | None = None
    endpoints: Mapping[str, float] = field(default_factory=dict)

    def view(self) -> dict[str, Any]:
        """Return the rates as they were set."""
        return {
            "account_per_second": self.account_per_second,
            "endpoint_per_second": self.endpoint_per_second,
            "endpoints": dict(self.endpoints),
        }


class Limiter:
    """The buckets of the rates in force."""

    def __init__(self, rates: Rates, clock: Callable[[], float]) -> None:
        self.rates = rates
        self.clock = clock
        self._buckets: dict[tuple[str, str], TokenBucket] = {}
        self._is_on = rates != Rates()

    def __bool__(self) -> bool:
        return self._is_on

    def admit(self, account: str, endpoint: str) -> None:
        """Count a request (`POST /v1/refunds`), or refuse it with Stripe's 429 and the reason."""
        rates = self.rates
        if not self._take(account, endpoint, rates.endpoints.get(endpoint, rates.endpoint_per_second)):
            raise too_many_requests("endpoint-rate")
        if not self._take(account, "", rates.account_per_second):
            raise too_many_requests("global-rate")

    def _take(self, account: str, endpoint: str, rate: float | None) -> bool:
        """Take a token if there is one; a second's worth of them is the most that gathers."""
        if rate is None:
            return True
        now = self.clock()
        bucket = self._buckets.get((account, endpoint))
        if bucket is None:
            bucket = self._buckets[account, endpoint] = TokenBucket(rate, rate, now)
        if bucket.wait(now):
            return False
        bucket.take()
        return True


def read_rates(document: object) -> Rates:
    """Read `{"account_per_second": 100, "endpoint_per_second": 25, "endpoints": {"POST /v1/refunds": 5}}`."""
    known = {"account_per_second", "endpoint_per_second", "endpoints"}
    if not isinstance(document, dict) or set(document) - known:
        raise LimitError(f"limits are an object with {', '.join(sorted(known))}")
    try:
        numbers = {name: _rate(document.get(name)) for name in ("account_per_second", "endpoint_per_second")}
        endpoints = {str(name): float(rate) for name, rate in dict(document.get("endpoints") or {}).items()}
    except (TypeError, ValueError) as error:
        raise LimitError(f"limits are numbers of requests a second: {error}") from error
    if any(rate is not None and rate <= 0 for rate in (*numbers.values(), *endpoints.values())):
        raise LimitError("a limit is more than 0 requests a second; null is none")
    return Rates(**numbers, endpoints=endpoints)


def _rate(value: object) -> float | None:
    return None if value is None else float(str(value))
