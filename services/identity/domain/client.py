"""Clients: a tenant's machines, and the secrets they prove themselves with. Only a secret's SHA-256 is ever here."""

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import ClassVar
from uuid import UUID, uuid5

from libs.common.decision import Aggregate
from libs.common.errors import ConflictError, NotFoundError, RejectedError

PLATFORM_CLIENT = "platform"
"""The first platform operator's client id."""
MAX_SECRETS = 2
"""Two may live at once, so that one can take over from the other."""
CLIENT_ID = re.compile(r"cl_([0-9a-f]{32})_([0-9a-f]{32})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Secret:
    """One secret of a client, as far as it may be kept."""

    id: UUID
    digest: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Client(Aggregate):
    """A machine that may ask for tokens. A deleted one stays, so that its id never comes back."""

    OWNER: ClassVar[str | None] = None
    id: str
    subject_id: UUID
    name: str
    scopes: tuple[str, ...]
    secrets: tuple[Secret, ...]
    deleted_at: datetime | None = None
    redirect_uris: tuple[str, ...] = ()
    """Where people's browsers are sent back to, when they have signed in with it. A client with any has no secret to keep."""
    last_used_on: date | None = None

    @property
    def is_gone(self) -> bool:
        """Whether it was deleted."""
        return self.deleted_at is not None


def client_id_of(tenant_id: UUID, subject_id: UUID) -> str:
    """A client id that names its tenant: the token endpoint must know whose row to look for."""
    return f"cl_{tenant_id.hex}_{subject_id.hex}"


def tenant_of(client_id: str) -> UUID | None:
    """The tenant that a client id names; None when it is no client id of a tenant."""
    match = CLIENT_ID.fullmatch(client_id)
    return UUID(hex=match[1]) if match else None


def digest_of(secret: str) -> str:
    """What is kept of a secret. It has 256 random bits, so a slow hash would only slow us."""
    return hashlib.sha256(secret.encode()).hexdigest()


def authenticates(client: Client | None, secret: str) -> bool:
    """Whether this is one of the client's secrets. Every one is compared, in constant time."""
    presented = digest_of(secret)
    known = client.secrets if client is not None and not client.is_gone else ()
    matches = [hmac.compare_digest(presented, each.digest) for each in known]
    return any(matches)


def operator(stored: Client | None, platform: UUID, digest: str, scopes: tuple[str, ...], now: datetime) -> Client:
    """The platform operator's client with this as its one secret; unchanged if that is what it has."""
    if stored is not None and stored.scopes == scopes and [secret.digest for secret in stored.secrets] == [digest]:
        return stored
    secrets = (Secret(id=uuid5(platform, digest), digest=digest, created_at=now),)
    if stored is not None:
        return replace(stored, scopes=scopes, secrets=secrets)
    return Client(
        tenant_id=platform,
        id=PLATFORM_CLIENT,
        subject_id=uuid5(platform, f"client:{PLATFORM_CLIENT}"),
        name="Platform operator",
        scopes=scopes,
        secrets=secrets,
    )


def demand_grantable(scopes: Iterable[str], grantable: Iterable[str], granter: Client | None) -> None:
    """Raise RejectedError unless all of these may be granted: by whoever has them, at this moment.

    `grantable` is what the granter's token allows; its own row may allow less by now, or nothing once it is deleted.
    """
    held = set(grantable)
    if granter is not None:
        held &= set() if granter.is_gone else set(granter.scopes)
    beyond = sorted(set(scopes) - held)
    if beyond:
        raise RejectedError("scope-not-grantable", f"you may not grant {' '.join(beyond)}", scopes=beyond)


def add_secret(client: Client, secret: Secret) -> Client:
    """One more secret, if there is room. An application in a browser keeps none."""
    if client.redirect_uris:
        raise ConflictError("client-is-public", "people sign in with this client: it has no secret", client_id=client.id)
    if len(client.secrets) >= MAX_SECRETS:
        detail = f"a client has at most {MAX_SECRETS} secrets; delete one first"
        raise ConflictError("too-many-secrets", detail, client_id=client.id)
    return replace(client, secrets=(*client.secrets, secret))


def remove_secret(client: Client, secret_id: UUID) -> Client:
    """The client without this secret. Raises NotFoundError when it has none such."""
    left = tuple(secret for secret in client.secrets if secret.id != secret_id)
    if len(left) == len(client.secrets):
        raise NotFoundError("secret-not-found", "the client has no such secret")
    return replace(client, secrets=left)


def delete(client: Client, now: datetime) -> Client:
    """The client as it stays when it is gone: without secrets."""
    return replace(client, secrets=(), deleted_at=now)
