"""Invitations: who is asked to join a tenant's staff, and who comes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from libs.common.decision import Message, Ref, World, present
from libs.common.errors import ConflictError
from services.identity import domain
from services.identity.domain.invitation import Invitation, InvitationState, Token
from services.identity.domain.member import Member
from services.identity.domain.tenant import Tenant
from services.identity.handlers.granting import (
    Granter,
    allowed_to,
    demand_grantable,
    granter_refs,
    granter_roles,
    role_refs,
    roles_of,
)
from services.identity.handlers.members import staff_of, staff_ref
from services.identity.handlers.table import HANDLERS


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateInvitation:
    """Ask somebody to join; under the id of the open invitation to the same address, if there is one."""

    invitation_id: UUID
    email: str
    roles: tuple[str, ...]
    token: Token
    letter: str | None
    granter: Granter
    member_id: UUID | None = None
    """Who has this address already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResendInvitation:
    """Ask once more: under another token, the one before it is good no more."""

    invitation_id: UUID
    token: Token
    letter: str | None
    granter: Granter


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeInvitation:
    """Ask no more."""

    invitation_id: UUID
    granter: Granter


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptInvitation:
    """Come, with the token whose digest is presented; `password` is the hash of the one that was chosen."""

    invitation_id: UUID
    presented: str
    member_id: UUID
    name: str
    password: str


Asking = Message[CreateInvitation] | Message[ResendInvitation] | Message[RevokeInvitation]


def _tenant(message: Message[Any]) -> Ref:
    return Ref(Tenant, message.tenant_id, shared=True)


def _invitation(message: Asking) -> list[Ref]:
    return [staff_ref(message), Ref(Invitation, message.data.invitation_id), *granter_refs(message)]


def _roles_promised(world: World, message: Asking) -> list[Ref]:
    invitation = world.get(Invitation, message.data.invitation_id)
    return [*granter_roles(world, message), *role_refs(invitation.roles if invitation is not None else ())]


def _roles_in_play(world: World, message: Message[CreateInvitation]) -> Iterable[Ref]:
    return [*_roles_promised(world, message), *role_refs(message.data.roles)]


@HANDLERS.on(CreateInvitation, lambda m: [*_invitation(m), _tenant(m)], _roles_in_play)
def create_invitation(world: World, message: Message[CreateInvitation]) -> Invitation:
    """Answers the invitation. Nobody asks somebody in for more than they may themselves."""
    command = message.data
    domain.tenant.demand_admitting(world.get(Tenant, world.tenant_id), world.tenant_id)
    domain.role.demand_known(command.roles, roles_of(world, command.roles))
    stored = world.get(Invitation, command.invitation_id)
    before = stored.roles if stored is not None else ()
    demand_grantable(world, allowed_to(world, command.roles) | allowed_to(world, before), command.granter)
    if command.member_id is not None:
        raise ConflictError("email-taken", "there is a member with this address", member_id=str(command.member_id))
    if stored is not None and domain.invitation.is_live(stored, world.now):
        raise ConflictError("already-open", "they are invited already; send it again instead", invitation_id=str(stored.id))
    if stored is not None:
        invitation = domain.invitation.renew(stored, command.roles, command.token, world.now)
    else:
        invitation = domain.invitation.invite(
            world.tenant_id, command.invitation_id, command.email, command.roles, command.token, world.now
        )
    return _asked(world, stored, invitation, command.letter)


@HANDLERS.on(ResendInvitation, _invitation, _roles_promised)
def resend_invitation(world: World, message: Message[ResendInvitation]) -> Invitation:
    """Answers the invitation as it is sent again. Whoever sends it may see its token, and so must hold what it promises."""
    command = message.data
    stored = present(Invitation, world.get(Invitation, command.invitation_id))
    demand_grantable(world, allowed_to(world, stored.roles), command.granter)
    invitation = domain.invitation.renew(stored, stored.roles, command.token, world.now)
    return _asked(world, stored, invitation, command.letter)


def _asked(world: World, before: Invitation | None, after: Invitation, letter: str | None) -> Invitation:
    world.save(domain.staff.change_invitation(staff_of(world), before, after))
    return world.save(after, domain.invitation.created(after, letter))


@HANDLERS.on(RevokeInvitation, _invitation, _roles_promised)
def revoke_invitation(world: World, message: Message[RevokeInvitation]) -> Invitation:
    """Answers the invitation, whose token is good no more."""
    command = message.data
    stored = present(Invitation, world.get(Invitation, command.invitation_id))
    demand_grantable(world, allowed_to(world, stored.roles), command.granter)
    revoked = domain.invitation.move(stored, InvitationState.REVOKED)
    world.save(domain.staff.change_invitation(staff_of(world), stored, revoked))
    return world.save(revoked)


@HANDLERS.on(AcceptInvitation, lambda m: [staff_ref(m), Ref(Invitation, m.data.invitation_id), _tenant(m)])
def accept_invitation(world: World, message: Message[AcceptInvitation]) -> Member:
    """Answers the new member. Raises RejectedError, in the same words whatever is wrong with the token."""
    command = message.data
    stored = world.get(Invitation, command.invitation_id)
    tenant = world.get(Tenant, world.tenant_id)
    if tenant is None or not tenant.is_open:
        raise domain.invitation.not_valid()
    accepted, member = domain.invitation.accept(
        stored, command.presented, command.member_id, command.name, command.password, world.now
    )
    staff = domain.staff.change_invitation(staff_of(world), stored, accepted)
    world.save(domain.staff.change_member(staff, None, member))
    world.save(accepted)
    return world.save(member)
