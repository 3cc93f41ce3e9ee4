"""What an access token grants (RFC 9068), and how a request may narrow it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from libs.common.errors import RejectedError
from services import SERVICES
from services.identity.domain.client import Client
from services.identity.domain.revocation import milliseconds
from services.identity.domain.session import Session

LIFETIME = timedelta(minutes=5)
SHOPPER_CLIENT = "shopper"
"""The public client that every shopper's session belongs to."""
AUDIENCES = SERVICES
CLAIMS_VERSION = 1

GUEST = "guest"
"""What the token of a shopper says besides whom the tenant does not know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """Whom a token speaks for, what it allows, and which services it is for."""

    subject_id: UUID
    client_id: str
    tenant_id: UUID | None
    """None for platform operators."""
    roles: tuple[str, ...]
    permissions: frozenset[str]
    audience: tuple[str, ...] = AUDIENCES
    session_id: UUID | None = None
    former_subject_id: UUID | None = None
    """The guest that a shopper was."""

    @property
    def scope(self) -> str:
        """The permissions as OAuth writes them."""
        return " ".join(sorted(self.permissions))

    @property
    def revocable(self) -> Mapping[str, object]:
        """By kind, whose epochs end a token of this grant."""
        named = {"tenant": self.tenant_id, "subject": self.subject_id, "session": self.session_id, "client": self.client_id}
        return {kind: name for kind, name in named.items() if name is not None}


def of_client(client: Client, role: str, allowed: frozenset[str]) -> Grant:
    """All that a tenant's machine may be granted: of its scopes, those that its role allows, whatever its row says."""
    return Grant(
        subject_id=client.subject_id,
        client_id=client.id,
        tenant_id=client.tenant_id,
        roles=(role,),
        permissions=frozenset(client.scopes) & allowed,
    )


def of_operator(client: Client, role: str, allowed: frozenset[str]) -> Grant:
    """All that the platform operator may be granted: no tenant, and every service's operator surface."""
    return replace(of_client(client, role, allowed), tenant_id=None)


def of_reader(client: Client, role: str, allowed: frozenset[str], tenant_id: UUID) -> Grant:
    """All that the platform operator may be granted of one tenant: to look."""
    return replace(of_client(client, role, allowed), tenant_id=tenant_id, permissions=allowed)


def of_session(session: Session, role: str, permissions: frozenset[str], audience: tuple[str, ...] = AUDIENCES) -> Grant:
    """What a shopper is granted."""
    return Grant(
        subject_id=session.subject_id,
        client_id=SHOPPER_CLIENT,
        tenant_id=session.tenant_id,
        roles=(role, GUEST) if session.is_guest else (role,),
        permissions=permissions,
        audience=audience,
        session_id=session.id,
        former_subject_id=session.former_subject_id,
    )


def of_member(session: Session, client: Client, kind: str, roles: Sequence[str], allowed: frozenset[str]) -> Grant:
    """What a member is granted: of what was asked for, what both their application and their roles allow by now."""
    asked = frozenset(session.scopes or client.scopes)
    return Grant(
        subject_id=session.subject_id,
        client_id=client.id,
        tenant_id=session.tenant_id,
        roles=(kind, *roles),
        permissions=asked & frozenset(client.scopes) & allowed,
        session_id=session.id,
    )


def narrow(
    permissions: frozenset[str], audience: tuple[str, ...], *, scope: str | None, resources: Sequence[str]
) -> tuple[frozenset[str], tuple[str, ...]]:
    """Only the scope asked for (RFC 6749) and only the services asked for (RFC 8707); nothing asked changes nothing."""
    asked = frozenset(scope.split()) if scope is not None else permissions
    if not asked or not asked <= permissions:
        beyond = " ".join(sorted(asked - permissions)) or "nothing"
        raise RejectedError("invalid-scope", f"this may not be granted: {beyond}")
    if not set(resources) <= set(audience):
        raise RejectedError("invalid-target", f"a resource is one of {' '.join(audience)}")
    return asked, tuple(service for service in audience if not resources or service in resources)


def claims(grant: Grant, issuer: str, token_id: UUID, now: datetime, *, after_ms: int = 0) -> dict[str, Any]:
    """The grant as the claims of a token that begins now.

    `iat_ms` is what epochs are compared with: not below `after_ms`, the last epoch of whom it is for.
    """
    issued_at = int(now.timestamp())
    optional = {"tid": grant.tenant_id, "sid": grant.session_id, "former_sub": grant.former_subject_id}
    return {
        "iss": issuer,
        "aud": list(grant.audience),
        "sub": str(grant.subject_id),
        "client_id": grant.client_id,
        "iat": issued_at,
        "iat_ms": max(milliseconds(now), after_ms),
        "exp": issued_at + int(LIFETIME.total_seconds()),
        "jti": str(token_id),
        "scope": grant.scope,
        "roles": list(grant.roles),
        "ver": CLAIMS_VERSION,
        **{name: str(value) for name, value in optional.items() if value is not None},
    }
