"""A tenant's own roles: what changes of one changes for everybody who holds it."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from libs.common.contracts.identity import Revocable
from libs.common.decision import Message, Ref, World, present
from libs.common.errors import ConflictError
from services.identity import domain
from services.identity.domain.role import Role
from services.identity.handlers.granting import Granter, demand_grantable, granter_refs, granter_roles
from services.identity.handlers.members import staff_of, staff_ref
from services.identity.handlers.revoking import epoch_ref, raise_epoch
from services.identity.handlers.table import HANDLERS

MANY = 200
"""Of more holders than these not each one's tokens are ended but the whole tenant's: one event, and everybody asks anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRole:
    """Make a role."""

    name: str
    description: str
    permissions: tuple[str, ...]
    granter: Granter


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRole:
    """Have a role allow something else; None leaves each as it is."""

    name: str
    description: str | None
    permissions: tuple[str, ...] | None
    granter: Granter
    holders: tuple[UUID, ...]
    """Who has it, as far as was known when the staff was at this version."""
    staff_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRole:
    """Take away a role that nobody has."""

    name: str


def _role(message: Message[CreateRole] | Message[ChangeRole]) -> list[Ref]:
    return [Ref(Role, message.data.name), *granter_refs(message)]


def _ended(message: Message[ChangeRole]) -> Iterable[tuple[Revocable, UUID]]:
    """Whose tokens end when the role takes something from them."""
    holders = message.data.holders
    return [("subject", holder) for holder in holders] if len(holders) <= MANY else [("tenant", message.tenant_id)]


@HANDLERS.on(CreateRole, _role, granter_roles)
def create_role(world: World, message: Message[CreateRole]) -> Role:
    """Answers the new role."""
    command = message.data
    demand_grantable(world, command.permissions, command.granter)
    role = Role(tenant_id=world.tenant_id, name=command.name, description=command.description, permissions=command.permissions)
    return world.save(domain.role.create(world.get(Role, command.name), role))


@HANDLERS.on(ChangeRole, lambda m: [staff_ref(m), *_role(m), *(epoch_ref(whose) for _, whose in _ended(m))], granter_roles)
def change_role(world: World, message: Message[ChangeRole]) -> Role:
    """Answers the role. Nobody changes one that allows more than they may; what it takes away ends its holders' tokens.

    Raises ConflictError when somebody was given the role, or lost it, since its holders were looked up.
    """
    command = message.data
    role = present(Role, world.get(Role, command.name))
    changed = domain.role.change(role, command.description, command.permissions)
    demand_grantable(world, {*role.permissions, *changed.permissions}, command.granter)
    if set(role.permissions) - set(changed.permissions):
        if staff_of(world).version != command.staff_version:
            raise ConflictError("staff-changed", "somebody was given a role, or lost one, at the same moment; try again")
        for kind, whose in _ended(message):
            raise_epoch(world, kind, whose)
    return world.save(changed)


@HANDLERS.on(DeleteRole, lambda m: [staff_ref(m), Ref(Role, m.data.name)])
def delete_role(world: World, message: Message[DeleteRole]) -> Role:
    """Answers what stays of the role. Raises ConflictError while somebody has it."""
    role = present(Role, world.get(Role, message.data.name))
    return world.save(domain.role.delete(role, staff_of(world).uses.get(role.name, 0), world.now))
