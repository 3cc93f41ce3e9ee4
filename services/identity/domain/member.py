"""Members: the people of a tenant's staff. One account a tenant and e-mail address; of a password only its hash is here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from libs.common.decision import Aggregate
from libs.common.errors import ConflictError


class MemberState(StrEnum):
    """Whether a member can sign in."""

    ACTIVE = "active"
    DEACTIVATED = "deactivated"
    REMOVED = "removed"


TRANSITIONS: dict[MemberState, frozenset[MemberState]] = {
    MemberState.ACTIVE: frozenset({MemberState.DEACTIVATED, MemberState.REMOVED}),
    MemberState.DEACTIVATED: frozenset({MemberState.ACTIVE, MemberState.REMOVED}),
    MemberState.REMOVED: frozenset(),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Member(Aggregate):
    """One person in one tenant; the id is the subject of their tokens. A removed one stays, for what names it."""

    OWNER: ClassVar[str | None] = None
    id: UUID
    email: str
    email_key: str
    """The address as it is compared."""
    name: str
    roles: tuple[str, ...]
    state: MemberState
    password: str | None
    """An Argon2id hash in PHC form; None once removed."""
    joined_at: datetime
    deleted_at: datetime | None = None

    @property
    def is_gone(self) -> bool:
        """Whether they were removed."""
        return self.state is MemberState.REMOVED

    @property
    def is_active(self) -> bool:
        """Whether they can sign in, and their tokens be renewed."""
        return self.state is MemberState.ACTIVE


def email_key(email: str) -> str:
    """An address as it is compared: two people do not share one that differs in capitals alone."""
    return email.casefold()


def move(member: Member, to: MemberState) -> Member:
    """Change state, if the table says so; to be as one is already changes nothing. Raises ConflictError otherwise."""
    if to is member.state:
        return member
    if to not in TRANSITIONS[member.state]:
        raise ConflictError("member-state", f"a member who is {member.state} cannot become {to}", state=str(member.state))
    return replace(member, state=to)


def change(member: Member, roles: Sequence[str] | None, state: MemberState | None) -> Member:
    """The member with other roles, or another state; None leaves each as it is."""
    changed = member if roles is None else replace(member, roles=tuple(sorted(set(roles))))
    return changed if state is None else move(changed, state)


def remove(member: Member, now: datetime) -> Member:
    """What stays of a member: who it was, and nothing to sign in with. The address is free for another account."""
    return replace(move(member, MemberState.REMOVED), roles=(), password=None, deleted_at=now)
