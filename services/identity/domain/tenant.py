"""Tenants: who may sell here, and how far each has come."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from libs.common.contracts.identity import TenantUpdated
from libs.common.decision import Aggregate
from libs.common.errors import ConflictError, NotFoundError
from services import SERVICES

PROVISIONERS = tuple(service for service in SERVICES if service != "identity")
"""The services that must each be able to serve a tenant before it is active."""


class TenantStatus(StrEnum):
    """Where a tenant stands."""

    PROVISIONING = "provisioning"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    CLOSING = "closing"
    CLOSED = "closed"


TRANSITIONS: dict[TenantStatus, frozenset[TenantStatus]] = {
    TenantStatus.PROVISIONING: frozenset({TenantStatus.ACTIVE, TenantStatus.CLOSING}),
    TenantStatus.ACTIVE: frozenset({TenantStatus.SUSPENDED, TenantStatus.CLOSING}),
    TenantStatus.SUSPENDED: frozenset({TenantStatus.ACTIVE, TenantStatus.CLOSING}),
    TenantStatus.CLOSING: frozenset({TenantStatus.CLOSED}),
    TenantStatus.CLOSED: frozenset(),
}
ADMITTING = frozenset({TenantStatus.PROVISIONING, TenantStatus.ACTIVE})
"""Where machines may sign in."""


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

    @property
    def is_news(self) -> bool:
        """Whoever onboards a tenant waits for it to leave provisioning."""
        return self.status is not TenantStatus.PROVISIONING

    @property
    def requires_totp(self) -> bool:
        """Whether nobody of its staff comes in without a second factor."""
        return self.settings.get("require_totp") is True

    @property
    def admits_clients(self) -> bool:
        """Machines may sign in while it is still being set up: its shop is prepared through them."""
        return self.status in ADMITTING


def move(tenant: Tenant, to: TenantStatus) -> Tenant:
    """Change status, if the table says so. Raises ConflictError otherwise."""
    if to not in TRANSITIONS[tenant.status]:
        raise ConflictError("tenant-status", f"a tenant that is {tenant.status} cannot become {to}", status=str(tenant.status))
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
    )


def change(tenant: Tenant | None, name: str | None, settings: Mapping[str, Any]) -> tuple[Tenant, TenantUpdated | None]:
    """Take a new name and new settings, one by one; None lets go of a choice. What changes nothing is no news.

    Raises NotFoundError when there is no such tenant, and ConflictError when it is no more.
    """
    if tenant is None:
        raise NotFoundError("tenant-not-found", "there is no such tenant")
    if tenant.status in {TenantStatus.CLOSING, TenantStatus.CLOSED}:
        raise ConflictError("tenant-status", f"the tenant is {tenant.status}", status=str(tenant.status))
    chosen = {key: value for key, value in {**tenant.settings, **settings}.items() if value is not None}
    changed = replace(tenant, name=name or tenant.name, settings=chosen)
    return changed, updated(changed) if changed != tenant else None


def note_provisioned(tenant: Tenant, service: str) -> tuple[Tenant, TenantUpdated | None]:
    """Take one service's word; the last of them makes the tenant active. Said again, it changes nothing."""
    noted = replace(tenant, provisioned=tuple(sorted({*tenant.provisioned, service})))
    if noted.status is not TenantStatus.PROVISIONING or not set(PROVISIONERS) <= set(noted.provisioned):
        return noted, None
    active = move(noted, TenantStatus.ACTIVE)
    return active, updated(active)


def demand_active(tenant: Tenant | None) -> Tenant:
    """The tenant, if shoppers may come in. One that is not open is as absent as none."""
    if tenant is None or tenant.status is not TenantStatus.ACTIVE:
        raise NotFoundError("tenant-not-found", "there is no such tenant, or it is not active")
    return tenant


def demand_admitting(tenant: Tenant | None, tenant_id: UUID) -> Tenant:
    """The tenant, if machines may sign in to it."""
    if tenant is None:
        raise NotFoundError("tenant-not-found", "there is no such tenant", tenant_id=str(tenant_id))
    if not tenant.admits_clients:
        raise ConflictError("tenant-status", f"the tenant is {tenant.status}", status=str(tenant.status))
    return tenant
