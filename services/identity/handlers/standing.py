"""How and where a tenant stands, as operators of the platform have it: every service learns of it, and says that it has."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from libs.common.contracts.identity import TenantUpdated
from libs.common.contracts.payments import TenantSettled
from libs.common.decision import Message, Ref, World, present
from libs.common.errors import NotFoundError
from libs.common.messaging.erasing import BuryTenant
from services.identity import domain
from services.identity.domain.tenant import Tenant, TenantStatus
from services.identity.handlers.revoking import epoch_ref, raise_epoch
from services.identity.handlers.table import HANDLERS


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspendTenant:
    """Have nothing new begin there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeTenant:
    """Open a tenant again that was suspended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseTenant:
    """Have nothing new begin there ever again; what its money still has to come to, it comes to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseTenant:
    """Have nothing left of it, anywhere, once all that was begun has come to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceTenant:
    """Have its rows be looked for in a cell, to which they were brought."""

    cell: str


def _tenant_and_epoch(message: Message[Any]) -> list[Ref]:
    return [Ref(Tenant, message.tenant_id), epoch_ref(message.tenant_id)]


@HANDLERS.on(SuspendTenant, _tenant_and_epoch)
def suspend_tenant(world: World, _message: Message[SuspendTenant]) -> Tenant:
    """Answers the tenant as it is now. Its tokens end: the next ones are given to whoever may still read."""
    return _settled(world, TenantStatus.SUSPENDED)


@HANDLERS.on(ResumeTenant, lambda m: [Ref(Tenant, m.tenant_id)])
def resume_tenant(world: World, _message: Message[ResumeTenant]) -> Tenant:
    """Answers the tenant as it is now."""
    return _settled(world, TenantStatus.ACTIVE)


@HANDLERS.on(CloseTenant, _tenant_and_epoch)
def close_tenant(world: World, _message: Message[CloseTenant]) -> Tenant:
    """Answers the tenant as it is now. There is no way back."""
    return _settled(world, TenantStatus.CLOSING)


@HANDLERS.on(EraseTenant, _tenant_and_epoch, outlives=True)
def erase_tenant(world: World, _message: Message[EraseTenant]) -> Tenant:
    """Answers the tenant as it is now. Nobody gets a token of it again."""
    return _settled(world, TenantStatus.ERASING)


@HANDLERS.on(PlaceTenant, lambda m: [Ref(Tenant, m.tenant_id)])
def place_tenant(world: World, message: Message[PlaceTenant]) -> Tenant:
    """Answers the tenant as it is now. Every process that answers for it learns of it."""
    placed, event = domain.tenant.place(world.get(Tenant, world.tenant_id), message.data.cell)
    return world.save(placed, event) if event else placed


def _tenant_of(message: Message[Any]) -> list[Ref]:
    return [Ref(Tenant, message.data.tenant_id)]


def _leaving(world: World, message: Message[Any]) -> Tenant:
    tenant = world.get(Tenant, message.data.tenant_id)
    if tenant is None:
        raise NotFoundError("tenant-not-found", f"{message.source} speaks of a tenant that was never made")
    domain.tenant.demand_recalled(tenant, message.data.tenant_version)
    return tenant


@HANDLERS.on(TenantUpdated, _tenant_of)
def recall(world: World, message: Message[TenantUpdated]) -> None:
    """What this service has said itself. It is news only to a database that was restored: others have gone on from there."""
    tenant = world.get(Tenant, message.data.tenant_id)
    recalled = domain.tenant.recall(tenant, message.data) if tenant is not None else None
    if recalled is not None and recalled != tenant:
        world.save(recalled)


@HANDLERS.on(TenantSettled, _tenant_of)
def note_settled(world: World, message: Message[TenantSettled]) -> None:
    """Nothing of the tenant is under way in a service any more; those that wait for it hear of that."""
    noted, event = domain.tenant.note_settled(_leaving(world, message), message.data.service)
    if event is not None:
        world.save(noted, event)


def note_erased(world: World, message: Message[Any]) -> None:
    """A service has nothing of the tenant any more; those that wait for it hear of that."""
    noted, event = domain.tenant.note_erased(_leaving(world, message), message.data.service, message.data.sha256)
    if event is not None:
        world.save(noted, event)


# The same fact from every publisher, as that a service can serve a tenant.
for publisher in domain.tenant.PROVISIONERS:
    HANDLERS.on(import_module(f"libs.common.contracts.{publisher}").TenantErased, _tenant_of)(note_erased)


@HANDLERS.on(BuryTenant, lambda m: [Ref(Tenant, m.tenant_id)], outlives=True)
def bury_tenant(world: World, message: Message[BuryTenant]) -> None:
    """All services have said their word, and nothing is left here either: what stays is told, in the place of all that was."""
    tenant = present(Tenant, world.get(Tenant, world.tenant_id))
    world.save(*domain.tenant.bury(tenant, message.data.sha256, world.now))


def _settled(world: World, to: TenantStatus) -> Tenant:
    settled, event = domain.tenant.settle(world.get(Tenant, world.tenant_id), to)
    if event is None:
        return settled
    if not settled.is_open:
        raise_epoch(world, "tenant", world.tenant_id)
    return world.save(settled, event)
