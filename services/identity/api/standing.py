"""How a tenant stands, for the platform's operators: suspended, open again, closing."""

from typing import Any
from uuid import UUID

from fastapi import Response

from libs.common.http.routes import Call, Caller, Routes, guard, reply
from services.identity.api.tenants import TenantModel, awaited, tenant_model
from services.identity.handlers import CloseTenant, ResumeTenant, SuspendTenant

ROUTES = Routes()


@ROUTES.post("/v1/tenants/{tenant_id}/suspend", response_model=TenantModel)
@guard("tenants:manage", platform_only=True)
async def suspend_tenant(call: Caller, tenant_id: UUID) -> Response:
    """Have nothing new begin there; what was begun ends, and is read. With `Prefer: wait`, once every service knows."""
    return await _settled(call, tenant_id, SuspendTenant())


@ROUTES.post("/v1/tenants/{tenant_id}/resume", response_model=TenantModel)
@guard("tenants:manage", platform_only=True)
async def resume_tenant(call: Caller, tenant_id: UUID) -> Response:
    """Open a tenant again that was suspended. With `Prefer: wait`, once every service knows."""
    return await _settled(call, tenant_id, ResumeTenant())


@ROUTES.post("/v1/tenants/{tenant_id}/close", response_model=TenantModel)
@guard("tenants:manage", platform_only=True)
async def close_tenant(call: Caller, tenant_id: UUID) -> Response:
    """Have nothing new begin there ever again. Money comes to its end, and all of it can be taken away (`…/export`)."""
    return await _settled(call, tenant_id, CloseTenant())


async def _settled(call: Call, tenant_id: UUID, command: Any) -> Response:
    await call.execute(command, tenant_id=tenant_id)
    tenant = await awaited(call, tenant_id, lambda tenant: tenant.is_known)
    return reply(200, tenant_model(tenant), ETag=f'"{tenant.version}"', **call.applied)
