"""What is let out to the provider: token buckets and a circuit breaker an account. They decide in memory, in microseconds.

Nothing queues without bound: a call waits for its token for as long as `MAX_WAIT_SECONDS`, and one that would wait longer
is refused at once and says when to come again. The figures are a process's own; several processes share a provider's
limit by having each a part of it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeVar

from libs.common.buckets import TokenBucket
from libs.common.telemetry import Counter, Gauge
from services.payments.domain.provider.account import Limits
from services.payments.domain.provider.outcome import Throttled, Unknown

MAX_WAIT_SECONDS = 0.5
BURST_SECONDS = 0.25
"""How much of a second's tokens may be taken at once: rate and burst together stay near what the provider allows."""
WINDOW_SECONDS = 10
MIN_CALLS = 20
"""Fewer calls than this within the window say nothing."""
FAILURE_SHARE = 0.5
OPEN_SECONDS = 5.0
MAX_OPEN_SECONDS = 60.0
PROBE_SECONDS = 1.0
"""When whoever is refused for a probe under way comes again."""

HELD_BACK = Counter("cartwright_provider_calls_held_back_total", "Calls that were not let out to the provider", ["by"])
CIRCUIT = Gauge("cartwright_provider_circuit_state", "0 closed (or never opened), 1 half open, 2 open", ["account"])

T = TypeVar("T")
Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


class CircuitState(IntEnum):
    """Whether calls are let out."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(slots=True)
class CircuitBreaker:
    """Stops calling a provider that does not answer, and asks with one call at a time whether it does again."""

    account: str
    state: CircuitState = CircuitState.CLOSED
    _slots: dict[int, list[int]] = field(default_factory=dict)
    """Calls and failures by second."""
    _open_until: float = 0.0
    _open_seconds: float = OPEN_SECONDS
    _probing: bool = False

    def refusal(self, now: float) -> float | None:
        """None when a call may go; otherwise in how many seconds to come again."""
        if self.state is CircuitState.OPEN:
            if now < self._open_until:
                return self._open_until - now
            self._become(CircuitState.HALF_OPEN)
        return PROBE_SECONDS if self._probing else None

    def enter(self) -> bool:
        """A call goes out; answers whether it is the one that tries a provider which did not answer before."""
        self._probing = self.state is CircuitState.HALF_OPEN
        return self._probing

    def leave(self, now: float, *, probe: bool, answered: bool | None) -> None:
        """What came of a call that went out: whether the provider answered it, whatever it said. None: it was canceled."""
        if probe:
            self._probing = False
            if answered is not None:
                self._close() if answered else self._open(now)
        elif self.state is CircuitState.CLOSED and answered is not None:
            self._count(now, answered=answered)

    def _count(self, now: float, *, answered: bool) -> None:
        second = int(now)
        slot = self._slots.get(second)
        if slot is None:
            slot = self._slots[second] = [0, 0]
            for old in [at for at in self._slots if at <= second - WINDOW_SECONDS]:
                del self._slots[old]
        slot[0] += 1
        if answered:
            return
        slot[1] += 1
        calls, failures = (sum(each[index] for each in self._slots.values()) for index in (0, 1))
        if calls >= MIN_CALLS and failures >= calls * FAILURE_SHARE:
            self._open(now)

    def _open(self, now: float) -> None:
        self._open_seconds = OPEN_SECONDS if self.state is CircuitState.CLOSED else min(2 * self._open_seconds, MAX_OPEN_SECONDS)
        self._open_until = now + self._open_seconds
        self._become(CircuitState.OPEN)

    def _close(self) -> None:
        self._slots.clear()
        self._become(CircuitState.CLOSED)

    def _become(self, state: CircuitState) -> None:
        self.state = state
        CIRCUIT.labels(self.account).set(state)


class Buckets:
    """One bucket for everything, and one for each endpoint once it is called."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self._all = _bucket(limits.per_second, now)
        self._of: dict[str, TokenBucket] = {}

    def of(self, endpoint: str, now: float) -> tuple[TokenBucket, ...]:
        """Both that a call to this endpoint needs a token of."""
        bucket = self._of.get(endpoint)
        if bucket is None:
            bucket = self._of[endpoint] = _bucket(self.limits.endpoint_per_second, now)
        return self._all, bucket


def _bucket(rate: float, now: float) -> TokenBucket:
    return TokenBucket(rate, rate * BURST_SECONDS, now)


class Guard:
    """What the calls of one account go through: its buckets and its circuit."""

    def __init__(self, account: str, limits: Limits, *, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep) -> None:
        self.account = account
        self.circuit = CircuitBreaker(account)
        self._clock = clock
        self._sleep = sleep
        self._buckets = Buckets(limits, clock())

    @property
    def limits(self) -> Limits:
        """The account's limits."""
        return self._buckets.limits

    def limit(self, limits: Limits) -> None:
        """Set the account's limits; the same ones change nothing."""
        if limits != self._buckets.limits:
            self._buckets = Buckets(limits, self._clock())

    async def call(self, endpoint: str, send: Callable[[], Awaitable[T]], share: "Buckets | None" = None) -> T | Throttled:
        """Let a call out when its turn comes, or answer `Throttled`: then nothing was sent.

        `share` are the buckets of one tenant within an account that several use.
        """
        now = self._clock()
        buckets = self._buckets.of(endpoint, now)
        if share is not None:
            buckets += share.of(endpoint, now)
        wait = max(bucket.wait(now) for bucket in buckets)
        if wait > MAX_WAIT_SECONDS:
            HELD_BACK.labels("limit").inc()
            return Throttled(wait)
        closed_for = self.circuit.refusal(now)
        if closed_for is not None:
            HELD_BACK.labels("circuit").inc()
            return Throttled(closed_for)
        for bucket in buckets:
            bucket.take()
        probe, answered = self.circuit.enter(), None
        try:
            if wait > 0:
                await self._sleep(wait)
            result = await send()
            # A failure that was stored comes from a provider that is there: one call of that kind would keep out all others.
            answered = not isinstance(result, Unknown) or result.stored
        finally:
            self.circuit.leave(self._clock(), probe=probe, answered=answered)
        return result
