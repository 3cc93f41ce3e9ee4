"""Idempotency keys as Stripe's v1 documents them (docs.stripe.com/api/idempotent_requests), for one account.

The first answer is stored once the endpoint began, whatever its status; a request refused before that, or in conflict
with one in flight, leaves nothing behind. A key lives 24 hours from its first use and is new again after that.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from deploy.local.fake_stripe.errors import StripeError, invalid, key_in_use
from deploy.local.fake_stripe.store import Store

LIFETIME_SECONDS = 24 * 3600
MAX_KEY_LENGTH = 255
_STORE = "INSERT OR REPLACE INTO stored VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Ask:
    """One use of a key: who is the same request is told by the path and the digest of the parameters."""

    key: str
    path: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Stored:
    """The first answer under a key."""

    ask: Ask
    status: int
    request_id: str
    stored_at: int
    body: bytes


class Keys:
    """The keys of one account."""

    def __init__(self, store: Store, account: str) -> None:
        self._store, self._account = store, account
        self._in_flight: set[str] = set()

    def begin(self, ask: Ask, now: int) -> Stored | None:
        """Return the stored answer, or None and mark the key as in flight; the caller must then `end` it."""
        if len(ask.key) > MAX_KEY_LENGTH:
            message = f"Idempotency keys can be at most {MAX_KEY_LENGTH} characters long."
            raise invalid(message, param="idempotency_key")
        if ask.key in self._in_flight:
            raise key_in_use(ask.key)
        stored = self._find(ask.key, now)
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
        ask, body = stored.ask, zlib.compress(stored.body, 1)
        row = (self._account, ask.key, ask.path, ask.fingerprint, stored.status, stored.request_id, stored.stored_at, body)
        self._store.write(_STORE, (self._account, ask.key), *row)

    def _find(self, key: str, now: int) -> Stored | None:
        row = self._store.gathered(_STORE).get((self._account, key)) or self._store.first(
            "SELECT * FROM stored WHERE account = ? AND key = ?", self._account, key
        )
        if row is None or row[6] <= now - LIFETIME_SECONDS:
            return None
        _, _, path, fingerprint, status, request_id, stored_at, body = row
        return Stored(Ask(key, path, fingerprint), status, request_id, stored_at, zlib.decompress(body))


def _reused(ask: Ask, first: Ask) -> StripeError:
    wanted = "with the same parameters they were first used with"
    if ask.path != first.path:
        wanted = f"for the same endpoint they were first used for ('{ask.path}' vs '{first.path}')"
    message = (
        f"Keys for idempotent requests can only be used {wanted}. "
        f"Try using a key other than '{ask.key}' if you meant to execute a different request."
    )
    return StripeError(400, "idempotency_error", message)
