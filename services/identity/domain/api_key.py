"""API keys: what a tenant gives to somebody else's program. Shown once; only a secret's SHA-256 is ever here."""

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import ClassVar
from uuid import UUID

from libs.common.decision import Aggregate
from libs.common.errors import RejectedError
from services.identity.domain.client import Client

PREFIX = "cwk_"
KEY = re.compile(r"cwk_([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})_([A-Za-z0-9_-]{64})")
TENANT_BYTES = 16
SECRET_BYTES = 32
LIFETIME = timedelta(days=365)
"""How long a key lives whose maker does not say."""
LONGEST = timedelta(days=5 * 365)


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiKey(Aggregate):
    """A key that is exchanged for access tokens. A removed one stays, so that its id never comes back."""

    OWNER: ClassVar[str | None] = None
    id: UUID
    name: str
    scopes: tuple[str, ...]
    digest: str
    created_at: datetime
    expires_at: datetime
    last_used_on: date | None = None
    deleted_at: datetime | None = None

    @property
    def is_gone(self) -> bool:
        """Whether it was removed."""
        return self.deleted_at is not None

    @property
    def client_id(self) -> str:
        """What its tokens call whoever has it."""
        return client_id_of(self.id)


@dataclass(frozen=True, slots=True)
class Presented:
    """A key that somebody sent, taken apart; nothing says yet that there is one like it."""

    tenant_id: UUID
    id: UUID
    digest: str


def client_id_of(key_id: UUID) -> str:
    """The public part of a key."""
    return f"{PREFIX}{key_id}"


def id_of(client_id: str) -> UUID | None:
    """The key that a client id names; None when it is another kind of client."""
    try:
        return UUID(client_id.removeprefix(PREFIX)) if client_id.startswith(PREFIX) else None
    except ValueError:
        return None


def text_of(tenant_id: UUID, key_id: UUID, secret: bytes) -> str:
    """The key as its owner keeps it. Its secret part begins with the tenant, whose row is to be looked for."""
    return f"{client_id_of(key_id)}_{urlsafe_b64encode(tenant_id.bytes + secret).decode()}"


def digest_of(text: str) -> str:
    """What is kept of a key. It has 256 random bits, so a slow hash would only slow us."""
    return hashlib.sha256(text.encode()).hexdigest()


def read(text: str) -> Presented | None:
    """A key taken apart; None when it cannot be one."""
    match = KEY.fullmatch(text)
    if match is None:
        return None
    return Presented(UUID(bytes=urlsafe_b64decode(match[2])[:TENANT_BYTES]), UUID(match[1]), digest_of(text))


def authenticates(key: ApiKey | None, presented: Presented, now: datetime) -> bool:
    """Whether this is the key, and counts. The digests are compared in constant time, whatever else is wrong."""
    known = key.digest if key is not None else digest_of("")
    is_same = hmac.compare_digest(presented.digest, known)
    return is_same and key is not None and not key.is_gone and now < key.expires_at


def expiry(now: datetime, asked: datetime | None) -> datetime:
    """When a new key ends. Raises RejectedError for the past, and for what is as good as never."""
    if asked is None:
        return now + LIFETIME
    if not now < asked <= now + LONGEST:
        detail = f"expires_at lies in the future, and within {LONGEST.days} days"
        raise RejectedError("bad-expiry", detail, errors=[{"pointer": "/expires_at", "detail": detail}])
    return asked


def demand_own(scopes: Iterable[str], granter: ApiKey | None, now: datetime) -> None:
    """Raise RejectedError unless the key that grants these has them itself, at this moment."""
    counts = granter is not None and not granter.is_gone and now < granter.expires_at
    beyond = sorted(set(scopes) - set(granter.scopes if granter is not None and counts else ()))
    if beyond:
        raise RejectedError("scope-not-grantable", f"you may not grant {' '.join(beyond)}", scopes=beyond)


def as_client(key: ApiKey) -> Client:
    """Whoever has the key, to all who look at tokens: a client without secrets of its own."""
    return Client(tenant_id=key.tenant_id, id=key.client_id, subject_id=key.id, name=key.name, scopes=key.scopes, secrets=())


def remove(key: ApiKey, now: datetime) -> ApiKey:
    """The key as it stays when it is gone."""
    return replace(key, deleted_at=now)
