"""How a tenant stands, as operators of the platform have it: every service learns of it, and says that it has."""

from dataclasses import dataclass
from typing import Any

from libs.common.decision import Message, Ref, World
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


def _settled(world: World, to: TenantStatus) -> Tenant:
    settled, event = domain.tenant.settle(world.get(Tenant, world.tenant_id), to)
    if event is None:
        return settled
    if not settled.is_open:
        raise_epoch(world, "tenant", world.tenant_id)
    return world.save(settled, event)
