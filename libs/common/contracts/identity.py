"""Events of the identity service: tenants, signing keys, revocations (compacted topics, always the whole state); letters."""

from dataclasses import field
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from annotated_types import Ge, MaxLen

from libs.common.contracts import Currency, Event, Text, event

Certificate = Annotated[str, MaxLen(2_000)]
Revocable = Literal["tenant", "subject", "session", "client"]
"""Whose tokens an epoch ends."""
Letter = Annotated[str, MaxLen(4_000)]


@event("tenant.v1", "tenant.updated", aggregate="tenant_id")
class TenantUpdated(Event):
    """A tenant as it is now. `version` rises with every change; a reader keeps the highest."""

    tenant_id: UUID
    version: int
    slug: Text
    status: str
    currency: Currency
    country: str
    settings: dict[str, Any] = field(default_factory=dict)
    settled_by: list[str] = field(default_factory=list)
    """While it is being erased: the services in which nothing of it is under way any more, of those that say so."""
    erased_by: list[str] = field(default_factory=list)
    """While it is being erased: the services that have nothing of it any more. Of one that is `erased` nothing else is told."""
    cell: str = "main"
    """Which set of databases its rows are in."""


@event("signing-key.v1", "signing-key.updated", aggregate="kid")
class SigningKeyUpdated(Event):
    """A public key that access tokens are, were or will be signed with."""

    kid: str
    jwk: dict[str, str]
    state: str
    not_before: datetime
    not_after: datetime | None = None
    certificate: Certificate | None = None
    """A JWS of the issuer's root key over this key, or its end. What has none is not believed."""


@event("revocation.v1", "revocation.raised", aggregate="id", keyed_by_tenant=False)
class RevocationRaised(Event):
    """Access tokens of this tenant, subject, session or client that were issued before `epoch` are refused from now on."""

    kind: Revocable
    id: Annotated[str, MaxLen(128)]
    epoch: Annotated[int, Ge(0)]
    """Milliseconds since 1970. Of two the higher counts, whichever comes last."""


@event("invitation.v1", "invitation.created", aggregate="invitation_id")
class InvitationCreated(Event):
    """Somebody is invited to a tenant's staff, or once more. Whoever writes to people has it delivered."""

    invitation_id: UUID
    expires_at: datetime
    letter: Letter | None = None
    """To whom and with which token: a JWE (RFC 7516) that only the holder of the letters' key opens. None without such a key."""


@event("password-reset.v1", "password-reset.created", aggregate="member_id")
class PasswordResetCreated(Event):
    """A member has forgotten their password. Whoever writes to people has the letter delivered, which is good until then."""

    member_id: UUID
    expires_at: datetime
    letter: Letter | None = None
    """As of an invitation."""
