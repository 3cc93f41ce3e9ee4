"""How a tenant stands, for the platform's operators: suspended, open again, closing, erased; and in which cell."""

from typing import Any
from uuid import UUID

from fastapi import Response
from pydantic import BaseModel, ConfigDict

from libs.common.http.routes import Call, Caller, Facing, Routes, guard, reply
from libs.common.settings import CellName
from services.identity.api.tenants import TenantModel, awaited, tenant_model
from services.identity.domain.tenant import Tenant
from services.identity.handlers import CloseTenant, EraseTenant, PlaceTenant, ResumeTenant, SuspendTenant

ROUTES = Routes(Facing.CUSTOMERS)


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


@ROUTES.post(
    "/v1/tenants/{tenant_id}/erase", status_code=202, response_model=TenantModel, responses={200: {"model": TenantModel}}
)
@guard("tenants:manage", platform_only=True)
async def erase_tenant(call: Caller, tenant_id: UUID) -> Response:
    """Delete all of a tenant that is closing, everywhere, once its money has come to its end. There is no way back."""
    await call.execute(EraseTenant(), tenant_id=tenant_id)
    tenant = await awaited(call, tenant_id, lambda tenant: tenant.erased_at is not None)
    status = 202 if tenant.erased_at is None else 200
    return reply(status, tenant_model(tenant), ETag=f'"{tenant.version}"', **call.applied)


class Placing(BaseModel):
    """Where a tenant's rows are by now."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cell: CellName


@ROUTES.put("/v1/tenants/{tenant_id}/cell", response_model=TenantModel)
@guard("tenants:manage", platform_only=True)
async def place_tenant(call: Caller, tenant_id: UUID, body: Placing) -> Response:
    """Have a tenant served from another cell. It moves nothing: `tenants move` calls it once the rows are there."""
    tenant: Tenant = await call.execute(PlaceTenant(cell=body.cell), tenant_id=tenant_id)
    return reply(200, tenant_model(tenant), ETag=f'"{tenant.version}"')


async def _settled(call: Call, tenant_id: UUID, command: Any) -> Response:
    await call.execute(command, tenant_id=tenant_id)
    tenant = await awaited(call, tenant_id, lambda tenant: tenant.is_known)
    return reply(200, tenant_model(tenant), ETag=f'"{tenant.version}"', **call.applied)
