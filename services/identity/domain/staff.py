"""A tenant's staff as a whole: how many own it, and who uses which role.

One row a tenant, locked by whatever changes a member, a role or an invitation. So what must hold of all of them together is
decided by counting here, however many change at once.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from libs.common.decision import Aggregate
from libs.common.errors import ConflictError
from services.identity.domain.invitation import Invitation, InvitationState
from services.identity.domain.member import Member
from services.identity.domain.role import OWNER, is_custom


@dataclass(frozen=True, kw_only=True, slots=True)
class Staff(Aggregate):
    """What is counted of a tenant's people."""

    KEY: ClassVar[str] = "tenant_id"
    owners: int = 0
    """Members who are owners and can sign in."""
    uses: Mapping[str, int] = field(default_factory=dict)
    """How many members and open invitations have each of the tenant's own roles; none, and it is not there."""


def change_member(staff: Staff, before: Member | None, after: Member) -> Staff:
    """Count a member who changed, or came. Raises ConflictError when nobody would be left who owns the tenant."""
    owners = staff.owners - _owns(before) + _owns(after)
    if owners < 1 and _owns(before):
        raise ConflictError("last-owner", "this is the tenant's last owner; make another one first")
    return replace(staff, owners=owners, uses=_counted(staff, _held(before), _held(after)))


def change_invitation(staff: Staff, before: Invitation | None, after: Invitation) -> Staff:
    """Count an invitation that changed, or is new."""
    return replace(staff, uses=_counted(staff, _promised(before), _promised(after)))


def _owns(member: Member | None) -> int:
    return int(member is not None and member.is_active and OWNER in member.roles)


def _held(member: Member | None) -> Iterable[str]:
    return () if member is None or member.is_gone else member.roles


def _promised(invitation: Invitation | None) -> Iterable[str]:
    return () if invitation is None or invitation.state is not InvitationState.OPEN else invitation.roles


def _counted(staff: Staff, before: Iterable[str], after: Iterable[str]) -> Mapping[str, int]:
    uses = dict(staff.uses)
    for names, step in ((before, -1), (after, 1)):
        for name in filter(is_custom, names):
            uses[name] = uses.get(name, 0) + step
    return {name: count for name, count in sorted(uses.items()) if count > 0}
