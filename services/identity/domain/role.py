"""Roles: what a member of a tenant's staff may. Six are built in; a tenant makes others, of what its own people hold."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar

from libs.common.decision import Aggregate
from libs.common.errors import ConflictError, RejectedError

OWNER = "owner"
NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
RESERVED = frozenset({"shopper", "guest", "client", "member", "platform-operator", "platform-reader"})
"""Kinds of callers: a token's `roles` says these too, and a role that is called so would pass for one."""

_LOOKING = frozenset(
    ["carts:read", "products:read", "checkouts:read", "orders:read", "stock:read", "payments:read", "disputes:read"]
)
_MONEY = frozenset(["orders:refund", "payments:capture", "payments:void", "payments:resolve", "refunds:write", "ledger:read"])
_ADMIN = _LOOKING | _MONEY
_ADMIN |= {
    "carts:write",
    "checkouts:write",
    "orders:write",
    "drops:manage",
    "promotions:write",
    "settings:read",
    "settings:write",
    "webhooks:write",
    "sessions:issue",
}
_ADMIN |= {"members:manage", "roles:manage", "clients:manage", "audit:read", "parked:read", "parked:repair"}

BUILT_IN: Mapping[str, frozenset[str]] = {
    OWNER: _ADMIN | {"provider-accounts:write", "exports:read"},
    "admin": _ADMIN,
    "support": _LOOKING | {"orders:write", "orders:refund"},
    "finance": _LOOKING | _MONEY,
    "fulfilment": frozenset(["products:read", "stock:read", "orders:read", "orders:write"]),
    "viewer": _LOOKING | {"ledger:read", "settings:read"},
}
"""All of a tenant's; all but where its money goes and its export; and the parts of those who each do one thing."""

DESCRIPTIONS: Mapping[str, str] = {
    OWNER: "Everything that the tenant may, also where its money goes and to take all of it away. There is always one.",
    "admin": "Everything but where the money goes.",
    "support": "Looks at what buyers did, writes notes, cancels and refunds orders.",
    "finance": "Captures, voids and refunds, and reads the ledger.",
    "fulfilment": "Sees what is ordered and what is there, and notes what became of it.",
    "viewer": "Looks, and changes nothing.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Role(Aggregate):
    """A role that a tenant made. A deleted one stays, and allows nothing."""

    KEY: ClassVar[str] = "name"
    OWNER: ClassVar[str | None] = None
    name: str
    description: str
    permissions: tuple[str, ...]
    deleted_at: datetime | None = None

    @property
    def is_gone(self) -> bool:
        """Whether it was deleted."""
        return self.deleted_at is not None


def is_custom(name: str) -> bool:
    """Whether a role of this name is a tenant's own, if there is one."""
    return name not in BUILT_IN


def allowed(names: Iterable[str], custom: Mapping[str, Role | None]) -> frozenset[str]:
    """What roles allow together. One that is not there, or no more, allows nothing."""
    found: set[str] = set()
    for name in names:
        role = custom.get(name)
        if name in BUILT_IN:
            found |= BUILT_IN[name]
        elif role is not None and not role.is_gone:
            found |= set(role.permissions)
    return frozenset(found & BUILT_IN[OWNER])


def demand_known(names: Iterable[str], custom: Mapping[str, Role | None]) -> None:
    """Raise RejectedError unless there is a role of each of these names."""
    unknown = sorted(name for name in names if is_custom(name) and ((role := custom.get(name)) is None or role.is_gone))
    if unknown:
        raise RejectedError("role-unknown", f"there is no role {' '.join(unknown)}", roles=unknown)


def create(stored: Role | None, role: Role) -> Role:
    """A new role, or one of a name that was free again. Raises ConflictError when the name is taken."""
    if role.name in BUILT_IN or role.name in RESERVED or (stored is not None and not stored.is_gone):
        raise ConflictError("role-taken", f"there is a role {role.name}", name=role.name)
    if stored is None:
        return role
    return replace(stored, description=role.description, permissions=role.permissions, deleted_at=None)


def delete(role: Role, uses: int, now: datetime) -> Role:
    """The role as it stays when it is gone. Raises ConflictError while somebody holds it or is invited to."""
    if uses:
        raise ConflictError("role-in-use", f"{uses} members and invitations have this role", uses=uses)
    return replace(role, permissions=(), deleted_at=now)


def change(role: Role, description: str | None, permissions: Iterable[str] | None) -> Role:
    """The role with another description, or other permissions; None leaves each as it is."""
    return replace(
        role,
        description=role.description if description is None else description,
        permissions=role.permissions if permissions is None else tuple(sorted(set(permissions))),
    )
