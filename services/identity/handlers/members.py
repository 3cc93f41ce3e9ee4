"""Members: what they may, and whether they may come in."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from libs.common.decision import Message, Ref, World, present
from services.identity import domain
from services.identity.domain.member import Member, MemberState
from services.identity.domain.second_factor import SecondFactor
from services.identity.domain.staff import Staff
from services.identity.handlers.granting import (
    Granter,
    allowed_to,
    demand_grantable,
    granter_refs,
    granter_roles,
    role_refs,
    roles_of,
)
from services.identity.handlers.revoking import epoch_ref, raise_epoch
from services.identity.handlers.table import HANDLERS


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeMember:
    """Give a member other roles, or another state; None leaves each as it is."""

    member_id: UUID
    roles: tuple[str, ...] | None
    state: MemberState | None
    granter: Granter


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveMember:
    """Take somebody off the staff for good."""

    member_id: UUID
    granter: Granter


def staff_ref(message: Message[Any]) -> Ref:
    """What is counted of the tenant's people: whatever changes one of them waits here for whatever changes another."""
    return Ref(Staff, message.tenant_id)


def staff_of(world: World) -> Staff:
    """What is counted of the tenant's people, of whom there may be none."""
    return world.get(Staff, world.tenant_id) or Staff(tenant_id=world.tenant_id)


def _member(message: Message[ChangeMember] | Message[RemoveMember]) -> list[Ref]:
    member_id = message.data.member_id
    return [staff_ref(message), Ref(Member, member_id), epoch_ref(member_id), *granter_refs(message)]


def _roles_held(world: World, message: Message[ChangeMember] | Message[RemoveMember]) -> list[Ref]:
    member = world.get(Member, message.data.member_id)
    return [*granter_roles(world, message), *role_refs(member.roles if member is not None else ())]


def _roles_in_play(world: World, message: Message[ChangeMember]) -> Iterable[Ref]:
    return [*_roles_held(world, message), *role_refs(message.data.roles or ())]


@HANDLERS.on(ChangeMember, _member, _roles_in_play)
def change_member(world: World, message: Message[ChangeMember]) -> Member:
    """Answers the member. Nobody changes somebody who holds, or is to hold, more than they do themselves."""
    command = message.data
    member = present(Member, world.get(Member, command.member_id))
    changed = domain.member.change(member, command.roles, command.state)
    domain.role.demand_known(changed.roles, roles_of(world, changed.roles))
    before, after = allowed_to(world, member.roles), allowed_to(world, changed.roles)
    demand_grantable(world, before | after, command.granter)
    if changed == member:
        return member
    world.save(domain.staff.change_member(staff_of(world), member, changed))
    if not changed.is_active or before - after:
        raise_epoch(world, "subject", member.id)
    return world.save(changed)


def _member_and_factor(message: Message[RemoveMember]) -> list[Ref]:
    return [*_member(message), Ref(SecondFactor, message.data.member_id)]


@HANDLERS.on(RemoveMember, _member_and_factor, _roles_held)
def remove_member(world: World, message: Message[RemoveMember]) -> Member:
    """Answers what stays of the member. Nobody removes somebody who holds more than they do themselves."""
    command = message.data
    member = present(Member, world.get(Member, command.member_id))
    demand_grantable(world, allowed_to(world, member.roles), command.granter)
    removed = domain.member.remove(member, world.now)
    world.save(domain.staff.change_member(staff_of(world), member, removed))
    raise_epoch(world, "subject", member.id)
    factor = world.get(SecondFactor, member.id)
    if factor is not None:
        world.save(domain.second_factor.remove(factor))
    return world.save(removed)
