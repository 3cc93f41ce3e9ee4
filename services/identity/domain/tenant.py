"""Tenants: who may sell here, and how far each has come."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from libs.common.cells import MAIN
from libs.common.contracts.identity import TenantUpdated
from libs.common.decision import Aggregate
from libs.common.errors import ConflictError, NotFoundError, NotYetError
from libs.common.standings import shut
from services import SERVICES

PROVISIONERS = tuple(service for service in SERVICES if service != "identity")
"""The services that must each be able to serve a tenant before it is active."""


class TenantStatus(StrEnum):
    """Where a tenant stands."""

    PROVISIONING = "provisioning"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    CLOSING = "closing"
    ERASING = "erasing"
    ERASED = "erased"


TRANSITIONS: dict[TenantStatus, frozenset[TenantStatus]] = {
    TenantStatus.PROVISIONING: frozenset({TenantStatus.ACTIVE, TenantStatus.CLOSING}),
    TenantStatus.ACTIVE: frozenset({TenantStatus.SUSPENDED, TenantStatus.CLOSING}),
    TenantStatus.SUSPENDED: frozenset({TenantStatus.ACTIVE, TenantStatus.CLOSING}),
    TenantStatus.CLOSING: frozenset({TenantStatus.ERASING}),
    TenantStatus.ERASING: frozenset({TenantStatus.ERASED}),
    TenantStatus.ERASED: frozenset(),
}
OPEN = frozenset({TenantStatus.PROVISIONING, TenantStatus.ACTIVE})
"""Where something new may begin; a shop is prepared while it is still being set up."""
ADMITTING = OPEN | {TenantStatus.SUSPENDED, TenantStatus.CLOSING}
"""Where machines and staff sign in."""
LEAVING = frozenset({TenantStatus.CLOSING, TenantStatus.ERASING, TenantStatus.ERASED})
"""From where there is no way back."""
NO_CURRENCY = "XXX"
"""ISO 4217's code for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tenant(Aggregate):
    """A tenant in full. `admin_email` stays in this database: no event ever carries it."""

    KEY: ClassVar[str] = "tenant_id"
    slug: str
    name: str
    status: TenantStatus
    currency: str
    country: str
    admin_email: str
    provisioned: tuple[str, ...] = ()
    """The services that have said they can serve it, sorted."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What it chose; what it never chose is not there, and each service knows what that means."""
    cell: str = MAIN
    """Where its rows are in all services but this one."""
    told_version: int = 0
    """The version by which the services were told of its present status, if an operator chose it."""
    acknowledged: tuple[str, ...] = ()
    """The services that have said since that they know of it, sorted."""
    settled_by: tuple[str, ...] = ()
    """The services that have said that nothing of it is under way there, while it is being erased; sorted."""
    erased_by: dict[str, str] = field(default_factory=dict)
    """The services that have nothing of it any more, each with the digest of what it had."""
    erased_at: datetime | None = None
    export_sha256: str | None = None
    """SHA-256 of the lines `service sha256`, in the order of `SERVICES`: what there was of it, everywhere."""

    @property
    def is_known(self) -> bool:
        """Whether every service knows of the status that an operator chose last."""
        return not self.told_version or set(PROVISIONERS) <= set(self.acknowledged)

    @property
    def is_news(self) -> bool:
        """Whoever onboards a tenant waits for it to leave provisioning."""
        return self.status is not TenantStatus.PROVISIONING

    @property
    def is_open(self) -> bool:
        """Whether something new may begin here."""
        return self.status in OPEN

    @property
    def requires_totp(self) -> bool:
        """Whether nobody of its staff comes in without a second factor."""
        return self.settings.get("require_totp") is True

    @property
    def admits_clients(self) -> bool:
        """Staff and machines sign in also where nothing new begins: they read, and give money back."""
        return self.status in ADMITTING

    @property
    def admits_shoppers(self) -> bool:
        """Whoever was let in before goes on reading."""
        return self.admits_clients and self.status is not TenantStatus.PROVISIONING


def move(tenant: Tenant, to: TenantStatus) -> Tenant:
    """Change status, if the table says so. Raises ConflictError otherwise."""
    if to not in TRANSITIONS[tenant.status]:
        can = " or ".join(status for status, ways in TRANSITIONS.items() if to in ways)
        detail = f"a tenant that is {tenant.status} cannot become {to}; one that is {can} can"
        raise ConflictError("tenant-status", detail, tenant_status=str(tenant.status))
    return replace(tenant, status=to)


def updated(tenant: Tenant) -> TenantUpdated:
    """The whole state, as the event that goes with the next save."""
    return TenantUpdated(
        tenant_id=tenant.tenant_id,
        version=tenant.version + 1,
        slug=tenant.slug,
        status=str(tenant.status),
        currency=tenant.currency,
        country=tenant.country,
        settings=tenant.settings,
        cell=tenant.cell,
        settled_by=list(tenant.settled_by),
        erased_by=[] if tenant.status is TenantStatus.ERASED else sorted(tenant.erased_by),
    )


def settle(tenant: Tenant | None, to: TenantStatus) -> tuple[Tenant, TenantUpdated | None]:
    """An operator has a tenant stand so from now on. Said again, it changes nothing.

    Raises NotFoundError when there is no such tenant, and ConflictError where the table does not lead there.
    """
    if tenant is None:
        raise NotFoundError("tenant-not-found", "there is no such tenant")
    if tenant.status is to or (to is TenantStatus.ERASING and tenant.status is TenantStatus.ERASED):
        return tenant, None
    settled = replace(move(tenant, to), told_version=tenant.version + 1, acknowledged=())
    return settled, updated(settled)


def recall(tenant: Tenant, told: TenantUpdated) -> Tenant:
    """Take what was said of a tenant once and is not known any more, as a database does that was restored to before that.

    All others have heard it, so it stands; what is said next is news to them. One that was erased is to be erased again.
    Raises NotYetError on a status that only a version after this one knows.
    """
    if told.version <= tenant.version:
        return tenant
    if told.status not in {*TenantStatus}:
        raise NotYetError("tenant-version-not-known", f"its status {told.status!r} is one of a version after this")
    status = TenantStatus(told.status)
    return replace(
        tenant,
        version=told.version,
        status=TenantStatus.ERASING if status is TenantStatus.ERASED else status,
        settings=tenant.settings if status is TenantStatus.ERASED else told.settings,
        cell=told.cell,
        settled_by=tuple(told.settled_by) if status is TenantStatus.ERASING else tenant.settled_by,
    )


def demand_recalled(tenant: Tenant, version: int) -> None:
    """Raise NotYetError when somebody speaks of a version that was told once and is not known here: it is about to be read."""
    if tenant.status not in (TenantStatus.ERASING, TenantStatus.ERASED) and version > tenant.version:
        raise NotYetError("tenant-version-not-known", f"it is at version {tenant.version} here, and was at {version} once")


def note_acknowledged(tenant: Tenant, service: str, version: int) -> Tenant:
    """Take one service's word that it knows the tenant as of a version. What is older than its status says nothing of that."""
    if tenant.is_known or service in tenant.acknowledged or version < tenant.told_version:
        return tenant
    return replace(tenant, acknowledged=tuple(sorted({*tenant.acknowledged, service})))


def note_settled(tenant: Tenant, service: str) -> tuple[Tenant, TenantUpdated | None]:
    """Take one service's word that nothing of a tenant is under way there: whoever may be asked by it till then can go."""
    if tenant.status is not TenantStatus.ERASING or service in tenant.settled_by:
        return tenant, None
    noted = replace(tenant, settled_by=tuple(sorted({*tenant.settled_by, service})))
    return noted, updated(noted)


def note_erased(tenant: Tenant, service: str, sha256: str) -> tuple[Tenant, TenantUpdated | None]:
    """Take one service's word that it has nothing of a tenant any more: for those that waited for it, it is their turn."""
    if tenant.status is not TenantStatus.ERASING or service in tenant.erased_by:
        return tenant, None
    noted = replace(tenant, erased_by={**tenant.erased_by, service: sha256})
    return noted, updated(noted)


def bury(tenant: Tenant, sha256: str, now: datetime) -> tuple[Tenant, TenantUpdated]:
    """What is left of a tenant: that there was one, until when, and the digest of all that it had. Its slug is free again.

    Raises ConflictError while a service still has something of it.
    """
    digests = {**tenant.erased_by, "identity": sha256}
    waiting = [service for service in SERVICES if service not in digests]
    if waiting:
        raise ConflictError("tenant-status", f"something of the tenant is still in {', '.join(waiting)}")
    lines = "".join(f"{service} {digests[service]}\n" for service in SERVICES)
    left = Tenant(
        tenant_id=tenant.tenant_id,
        version=tenant.version,
        sequence=tenant.sequence,
        slug="",
        name="",
        status=move(tenant, TenantStatus.ERASED).status,
        currency=NO_CURRENCY,
        country="",
        admin_email="",
        cell=tenant.cell,
        erased_by=digests,
        erased_at=now,
        export_sha256=hashlib.sha256(lines.encode()).hexdigest(),
    )
    return left, updated(left)


def change(tenant: Tenant | None, name: str | None, settings: Mapping[str, Any]) -> tuple[Tenant, TenantUpdated | None]:
    """Take a new name and new settings, one by one; None lets go of a choice. What changes nothing is no news.

    Raises NotFoundError when there is no such tenant, and ConflictError when it is no more.
    """
    if tenant is None:
        raise NotFoundError("tenant-not-found", "there is no such tenant")
    if tenant.status in LEAVING:
        raise ConflictError("tenant-status", f"the tenant is {tenant.status}", tenant_status=str(tenant.status))
    chosen = {key: value for key, value in {**tenant.settings, **settings}.items() if value is not None}
    changed = replace(tenant, name=name or tenant.name, settings=chosen)
    return changed, updated(changed) if changed != tenant else None


def place(tenant: Tenant | None, cell: str) -> tuple[Tenant, TenantUpdated | None]:
    """Have a tenant's rows be looked for in this cell from now on. Said again, it changes nothing.

    Raises NotFoundError when there is no such tenant, and ConflictError when nothing of it is to be found anywhere for long.
    """
    if tenant is None:
        raise NotFoundError("tenant-not-found", "there is no such tenant")
    if tenant.cell == cell:
        return tenant, None
    if tenant.status in (TenantStatus.ERASING, TenantStatus.ERASED):
        raise ConflictError("tenant-status", f"the tenant is {tenant.status}", tenant_status=str(tenant.status))
    placed = replace(tenant, cell=cell)
    return placed, updated(placed)


def note_provisioned(tenant: Tenant, service: str) -> tuple[Tenant, TenantUpdated | None]:
    """Take one service's word; the last of them makes the tenant active. Said again, it changes nothing."""
    noted = replace(tenant, provisioned=tuple(sorted({*tenant.provisioned, service})))
    if noted.status is not TenantStatus.PROVISIONING or not set(PROVISIONERS) <= set(noted.provisioned):
        return noted, None
    active = move(noted, TenantStatus.ACTIVE)
    return active, updated(active)


def demand_active(tenant: Tenant | None) -> Tenant:
    """The tenant, if shoppers may come in. One that is not open yet, or is no more, is as absent as none."""
    if tenant is not None and tenant.admits_shoppers and not tenant.is_open:
        raise shut(tenant.status)
    if tenant is None or tenant.status is not TenantStatus.ACTIVE:
        raise NotFoundError("tenant-not-found", "there is no such tenant, or it is not active")
    return tenant


def demand_admitting(tenant: Tenant | None, tenant_id: UUID) -> Tenant:
    """The tenant, if somebody may be let in to it who was not before."""
    if tenant is None:
        raise NotFoundError("tenant-not-found", "there is no such tenant", tenant_id=str(tenant_id))
    if not tenant.is_open:
        raise ConflictError("tenant-status", f"the tenant is {tenant.status}", tenant_status=str(tenant.status))
    return tenant
