"""Who grants something, and that nobody grants more than they have themselves, at this moment."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from libs.common.decision import Message, Ref, World
from services.identity import domain
from services.identity.domain.client import Client
from services.identity.domain.member import Member
from services.identity.domain.role import Role, is_custom


@dataclass(frozen=True, slots=True, kw_only=True)
class Granter:
    """Who grants something, and what its token says that it may."""

    tenant_id: UUID
    """The platform's own id for its operators."""
    client_id: str
    grantable: tuple[str, ...]
    subject_id: UUID | None = None
    """Who it is, if it may be one of the tenant's members."""


def granter_refs(message: Message[Any]) -> list[Ref]:
    """Whoever grants, if it is of this tenant: its client, and the member, locked so that neither is being deleted meanwhile."""
    granter: Granter = message.data.granter
    if granter.tenant_id != message.tenant_id:
        return []
    member = [] if granter.subject_id is None else [Ref(Member, granter.subject_id)]
    return [Ref(Client, granter.client_id), *member]


def role_refs(names: Iterable[str]) -> list[Ref]:
    """The tenant's own roles of these names, to look at."""
    return [Ref(Role, name, shared=True) for name in dict.fromkeys(names) if is_custom(name)]


def granter_roles(world: World, message: Message[Any]) -> list[Ref]:
    """What the granter's own roles are, for those that have any."""
    member = _member(world, message.data.granter)
    return role_refs(member.roles if member is not None else ())


def roles_of(world: World, names: Iterable[str]) -> Mapping[str, Role | None]:
    """The tenant's own roles of these names, as they are now."""
    return {name: world.get(Role, name) for name in names if is_custom(name)}


def allowed_to(world: World, names: Sequence[str]) -> frozenset[str]:
    """What these roles allow, as they are now."""
    return domain.role.allowed(names, roles_of(world, names))


def demand_grantable(world: World, permissions: Iterable[str], granter: Granter) -> None:
    """Raise RejectedError unless whoever grants has all of these: by its token, its client's row and its own roles."""
    is_own = granter.tenant_id == world.tenant_id
    member = _member(world, granter)
    held = set(granter.grantable)
    if member is not None:
        held &= allowed_to(world, member.roles) if member.is_active else set()
    domain.client.demand_grantable(permissions, held, world.get(Client, granter.client_id) if is_own else None)


def _member(world: World, granter: Granter) -> Member | None:
    if granter.tenant_id != world.tenant_id or granter.subject_id is None:
        return None
    return world.get(Member, granter.subject_id)
