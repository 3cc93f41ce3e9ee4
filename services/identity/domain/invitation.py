"""Invitations to a tenant's staff: a token by e-mail, good once and for a week. Only the token's SHA-256 is here."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from libs.common.contracts.identity import InvitationCreated
from libs.common.decision import Aggregate
from libs.common.errors import ConflictError, RejectedError
from services.identity.domain.member import Member, MemberState, email_key

LIFETIME = timedelta(days=7)


class InvitationState(StrEnum):
    """Where an invitation stands. One that is over by time is still open: it can be sent again."""

    OPEN = "open"
    ACCEPTED = "accepted"
    REVOKED = "revoked"


TRANSITIONS: dict[InvitationState, frozenset[InvitationState]] = {
    InvitationState.OPEN: frozenset({InvitationState.ACCEPTED, InvitationState.REVOKED}),
    InvitationState.ACCEPTED: frozenset(),
    InvitationState.REVOKED: frozenset(),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """What may be kept of an invitation's token: what it was derived from, and its digest."""

    nonce: str
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Invitation(Aggregate):
    """Somebody who may become a member, with these roles."""

    OWNER: ClassVar[str | None] = None
    id: UUID
    email: str
    email_key: str
    roles: tuple[str, ...]
    state: InvitationState
    nonce: str
    digest: str
    expires_at: datetime


def digest_of(token: str) -> str:
    """What is kept of a token. It has 256 random bits, so a slow hash would only slow us."""
    return hashlib.sha256(token.encode()).hexdigest()


def invite(tenant_id: UUID, invitation_id: UUID, email: str, roles: Sequence[str], token: Token, now: datetime) -> Invitation:
    """A new invitation, open from now on."""
    return Invitation(
        tenant_id=tenant_id,
        id=invitation_id,
        email=email,
        email_key=email_key(email),
        roles=tuple(sorted(set(roles))),
        state=InvitationState.OPEN,
        nonce=token.nonce,
        digest=token.digest,
        expires_at=now + LIFETIME,
    )


def move(invitation: Invitation, to: InvitationState) -> Invitation:
    """Change state, if the table says so. Raises ConflictError otherwise."""
    if to not in TRANSITIONS[invitation.state]:
        raise ConflictError(
            "invitation-state", f"an invitation that is {invitation.state} cannot be {to}", state=str(invitation.state)
        )
    return replace(invitation, state=to)


def renew(invitation: Invitation, roles: Sequence[str], token: Token, now: datetime) -> Invitation:
    """The same invitation under a new token; the one before it is good no more. Raises ConflictError unless it is open."""
    if invitation.state is not InvitationState.OPEN:
        raise ConflictError("invitation-state", f"the invitation is {invitation.state}", state=str(invitation.state))
    roles = tuple(sorted(set(roles)))
    return replace(invitation, roles=roles, nonce=token.nonce, digest=token.digest, expires_at=now + LIFETIME)


def is_live(invitation: Invitation, now: datetime) -> bool:
    """Whether its token is still good."""
    return invitation.state is InvitationState.OPEN and now < invitation.expires_at


def not_valid() -> RejectedError:
    """All that is ever said of a token that is made up, used, withdrawn, over by time or another tenant's."""
    return RejectedError("invitation-not-valid", "this invitation is not valid; ask for another")


def accept(
    invitation: Invitation | None, presented: str, member_id: UUID, name: str, password: str, now: datetime
) -> tuple[Invitation, Member]:
    """Take the token whose digest is presented for an account. Raises RejectedError, in the same words whatever is wrong."""
    is_right = hmac.compare_digest(presented, invitation.digest if invitation is not None else "")
    if invitation is None or not is_right or not is_live(invitation, now):
        raise not_valid()
    member = Member(
        tenant_id=invitation.tenant_id,
        id=member_id,
        email=invitation.email,
        email_key=invitation.email_key,
        name=name,
        roles=invitation.roles,
        state=MemberState.ACTIVE,
        password=password,
        joined_at=now,
    )
    return move(invitation, InvitationState.ACCEPTED), member


def created(invitation: Invitation, letter: str | None) -> InvitationCreated:
    """The event for whoever writes to people. What is to be written is in the letter, which only they can open."""
    return InvitationCreated(invitation_id=invitation.id, expires_at=invitation.expires_at, letter=letter)
