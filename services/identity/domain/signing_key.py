"""Signing keys: which one signs, which one will, and which are still believed. The private part is here only sealed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from libs.common.contracts.identity import SigningKeyUpdated
from libs.common.decision import Aggregate
from libs.common.errors import ConflictError, NotFoundError

OUTLASTS = timedelta(minutes=10)
"""How long a key is believed that signs no more: the life of a token, and before it the minute for which a process that
cannot read its keys goes on signing with those it knows; the rest is for clocks that differ."""


class KeyState(StrEnum):
    """Where a signing key stands."""

    NEXT = "next"
    """Published, so that everybody knows it before it signs."""
    ACTIVE = "active"
    RETIRED = "retired"
    """Signs no more; what it signed is believed until that expires."""
    REVOKED = "revoked"
    """Believed no more, and never again."""


TRANSITIONS: dict[KeyState, frozenset[KeyState]] = {
    KeyState.NEXT: frozenset({KeyState.ACTIVE, KeyState.REVOKED}),
    KeyState.ACTIVE: frozenset({KeyState.RETIRED, KeyState.REVOKED}),
    KeyState.RETIRED: frozenset({KeyState.REVOKED}),
    KeyState.REVOKED: frozenset(),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SigningKey(Aggregate):
    """A P-256 key pair of the platform. At any time exactly one is active, and at most one is next."""

    KEY: ClassVar[str] = "kid"
    kid: str
    state: KeyState
    jwk: dict[str, str]
    """The public key (RFC 7517)."""
    sealed_private_key: bytes
    """Empty once it signs no more: what is not there is neither stolen nor rotated."""
    not_before: datetime
    """Since when it signs; of the next one, when it may at the earliest."""
    not_after: datetime | None = None
    """Until when it is believed."""


def move(key: SigningKey, to: KeyState) -> SigningKey:
    """Change state, if the table says so. Raises ConflictError otherwise."""
    if to not in TRANSITIONS[key.state]:
        detail = f"a signing key that is {key.state} cannot become {to}"
        raise ConflictError("signing-key-state", detail, kid=key.kid, state=str(key.state))
    return replace(key, state=to)


def activate(key: SigningKey, now: datetime) -> SigningKey:
    """The next key as the one that signs."""
    return replace(move(key, KeyState.ACTIVE), not_before=now)


def retire(key: SigningKey, now: datetime) -> SigningKey:
    """The key that signed: without its private half, and believed until what it signed is over."""
    return replace(move(key, KeyState.RETIRED), sealed_private_key=b"", not_after=now + OUTLASTS)


def revoke(key: SigningKey, now: datetime) -> SigningKey:
    """The key as one that nobody believes any more."""
    return replace(move(key, KeyState.REVOKED), sealed_private_key=b"", not_after=now)


def demand_known(key: SigningKey, now: datetime) -> None:
    """Raise ConflictError while a next key is too new for everybody to have heard of it."""
    if now < key.not_before:
        seconds = int((key.not_before - now).total_seconds()) + 1
        detail = f"the next key was published a moment ago, and signs in {seconds} s at the earliest"
        raise ConflictError("signing-key-too-new", detail, kid=key.kid, retry_after=seconds)


def in_state(keys: Sequence[SigningKey], state: KeyState) -> SigningKey | None:
    """The one key in this state."""
    return next((key for key in keys if key.state is state), None)


def find(keys: Sequence[SigningKey], kid: str) -> SigningKey:
    """The key of this id. Raises NotFoundError."""
    found = next((key for key in keys if key.kid == kid), None)
    if found is None:
        raise NotFoundError("signing-key-not-found", "there is no such signing key")
    return found


def is_due(keys: Sequence[SigningKey], now: datetime, period: timedelta) -> bool:
    """Whether the key that signs has done so for a whole period, and the next one is known."""
    active, following = in_state(keys, KeyState.ACTIVE), in_state(keys, KeyState.NEXT)
    return active is not None and following is not None and max(active.not_before + period, following.not_before) <= now


def over(keys: Sequence[SigningKey], now: datetime) -> Sequence[SigningKey]:
    """The retired ones whose last token is over."""
    return [key for key in keys if key.state is KeyState.RETIRED and key.not_after is not None and key.not_after <= now]


def ended(keys: Sequence[SigningKey], now: datetime) -> Sequence[SigningKey]:
    """Those of them, as ones that nobody believes any more. Their end stays when it was to be."""
    return [move(key, KeyState.REVOKED) for key in over(keys, now)]


def updated(key: SigningKey, certificate: str) -> SigningKeyUpdated:
    """The whole state but the private key, for everybody who verifies; with the root key's word for it, or for its end."""
    return SigningKeyUpdated(
        kid=key.kid,
        jwk=key.jwk,
        state=str(key.state),
        not_before=key.not_before,
        not_after=key.not_after,
        certificate=certificate,
    )
