"""Idempotency keys as Stripe's v1 documents them (docs.stripe.com/api/idempotent_requests), for one account.

The first answer is stored once the endpoint began, whatever its status; a request refused before that, or in conflict
with one in flight, leaves nothing behind. A key lives 24 hours from its first use and is new again after that.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from deploy.local.fake_stripe.errors import StripeError, invalid, key_in_use

LIFETIME_SECONDS = 24 * 3600
MAX_KEY_LENGTH = 255


class Extent(NamedTuple):
    """Where in the journal a body lies, in bytes."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Ask:
    """One use of a key: who is the same request is told by the path and the digest of the parameters."""

    key: str
    path: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Stored:
    """The first answer under a key; its body lies in the journal, since few are ever asked for again."""

    ask: Ask
    status: int
    request_id: str
    stored_at: int
    extent: Extent


class Keys:
    """The keys of one account."""

    def __init__(self) -> None:
        self._stored: dict[str, Stored] = {}
        self._by_age: deque[tuple[int, str]] = deque()
        self._in_flight: set[str] = set()

    def __len__(self) -> int:
        return len(self._stored)

    def begin(self, ask: Ask, now: int) -> Stored | None:
        """Return the stored answer, or None and mark the key as in flight; the caller must then `end` it."""
        self._expire(now)
        if len(ask.key) > MAX_KEY_LENGTH:
            message = f"Idempotency keys can be at most {MAX_KEY_LENGTH} characters long."
            raise invalid(message, param="idempotency_key")
        if ask.key in self._in_flight:
            raise key_in_use(ask.key)
        stored = self._stored.get(ask.key)
        if stored is None:
            self._in_flight.add(ask.key)
        elif stored.ask != ask:
            raise _reused(ask, stored.ask)
        return stored

    def end(self, ask: Ask) -> None:
        """Let go of a key, with an answer stored or without."""
        self._in_flight.discard(ask.key)

    def store(self, stored: Stored) -> None:
        """Keep the first answer under its key."""
        self._stored[stored.ask.key] = stored
        self._by_age.append((stored.stored_at, stored.ask.key))

    def living(self, now: int) -> list[Stored]:
        """Return the answers that have not expired, oldest first."""
        self._expire(now)
        return list(self._stored.values())

    def _expire(self, now: int) -> None:
        while self._by_age and self._by_age[0][0] <= now - LIFETIME_SECONDS:
            _, key = self._by_age.popleft()
            self._stored.pop(key, None)


def _reused(ask: Ask, first: Ask) -> StripeError:
    wanted = "with the same parameters they were first used with"
    if ask.path != first.path:
        wanted = f"for the same endpoint they were first used for ('{ask.path}' vs '{first.path}')"
    message = (
        f"Keys for idempotent requests can only be used {wanted}. "
        f"Try using a key other than '{ask.key}' if you meant to execute a different request."
    )
    return StripeError(400, "idempotency_error", message)
