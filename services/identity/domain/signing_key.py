"""Signing keys: which one signs, and which are still believed. The private part is here only sealed."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from libs.common.contracts.identity import SigningKeyUpdated
from libs.common.decision import Aggregate


class KeyState(StrEnum):
    """Where a signing key stands."""

    NEXT = "next"
    """Published, so that everybody knows it before it signs."""
    ACTIVE = "active"
    RETIRED = "retired"
    """Signs no more; what it signed is believed until that expires."""


TRANSITIONS: dict[KeyState, frozenset[KeyState]] = {
    KeyState.NEXT: frozenset({KeyState.ACTIVE, KeyState.RETIRED}),
    KeyState.ACTIVE: frozenset({KeyState.RETIRED}),
    KeyState.RETIRED: frozenset(),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SigningKey(Aggregate):
    """A P-256 key pair of the platform. At any time exactly one is active."""

    KEY: ClassVar[str] = "kid"
    kid: str
    state: KeyState
    jwk: dict[str, str]
    """The public key (RFC 7517)."""
    sealed_private_key: bytes
    not_before: datetime
    not_after: datetime | None = None


def updated(key: SigningKey, certificate: str) -> SigningKeyUpdated:
    """The whole state but the private key, for everybody who verifies; with the root key's word for it."""
    return SigningKeyUpdated(
        kid=key.kid,
        jwk=key.jwk,
        state=str(key.state),
        not_before=key.not_before,
        not_after=key.not_after,
        certificate=certificate,
    )
