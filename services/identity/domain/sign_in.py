"""Signing in by browser: an authorization code (RFC 6749 §4.1) under PKCE (RFC 7636), good once and for a minute."""

import base64
import hashlib
import hmac
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from libs.common.decision import Aggregate

LIFETIME = timedelta(minutes=1)
CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
REDIRECT = re.compile(r"(?:https://[^\s/?#@\\]+|http://(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?)(?:/[^\s#\\]*)?")
"""Where an application may ask to be answered: over TLS, or on the machine of whoever develops it. Compared as text."""


class Redeemed(StrEnum):
    """What became of an authorization code that was presented."""

    TAKEN = "taken"
    REUSED = "reused"
    """Taken before: somebody has a copy, so what it was taken for is over."""
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthorizationCode(Aggregate):
    """What a member let an application have. Of the code only SHA-256 is kept."""

    OWNER: ClassVar[str | None] = "member_id"
    id: UUID
    digest: str
    member_id: UUID
    client_id: str
    redirect_uri: str
    challenge: str
    scopes: tuple[str, ...]
    expires_at: datetime
    session_id: UUID | None = None
    """The session that it was taken for."""

    @property
    def issued_at(self) -> datetime:
        """When the member showed that it was them."""
        return self.expires_at - LIFETIME


def digest_of(code: str) -> str:
    """What is kept of a code. It has 256 random bits."""
    return hashlib.sha256(code.encode()).hexdigest()


def is_redirect(uri: str, registered: Collection[str]) -> bool:
    """Whether a client may be answered there: exactly as it is registered, sign by sign (RFC 9700 §2.1)."""
    return uri in registered


def proves(verifier: str, challenge: str) -> bool:
    """Whether this is what the challenge was made of (RFC 7636 §4.6, S256)."""
    if VERIFIER.fullmatch(verifier) is None:
        return False
    digest = hashlib.sha256(verifier.encode()).digest()
    return hmac.compare_digest(base64.urlsafe_b64encode(digest).rstrip(b"=").decode(), challenge)


def redeem(
    code: AuthorizationCode | None,
    *,
    presented: str,
    client_id: str,
    redirect_uri: str,
    verifier: str,
    session_id: UUID,
    now: datetime,
) -> tuple[AuthorizationCode | None, Redeemed]:
    """Take a code for a session, by its digest: for the client, at the address and with the verifier that it was made with."""
    if code is None or not hmac.compare_digest(presented, code.digest):
        return None, Redeemed.REFUSED
    if code.session_id is not None:
        return code, Redeemed.REUSED
    is_theirs = code.client_id == client_id and code.redirect_uri == redirect_uri and proves(verifier, code.challenge)
    if not is_theirs or now >= code.expires_at:
        return code, Redeemed.REFUSED
    return replace(code, session_id=session_id), Redeemed.TAKEN
