"""A tenant's own, to be taken away: what identity keeps of it, and where the other parts are to be had."""

from uuid import UUID

from fastapi import Response
from pydantic import BaseModel

from libs.common.http.exports import OPERATOR, OWNER, export_routes
from libs.common.http.routes import Caller, Facing, Routes, guard, reply
from services import SERVICES
from services.identity import tables
from services.identity.api.tenants import tenant_of_path
from services.identity.domain.tenant import TenantStatus

ROUTES = Routes(Facing.CUSTOMERS)
ROUTES.include_router(export_routes("identity", tables.HOLDINGS))


class PartModel(BaseModel):
    """One service's part."""

    service: str
    path: str


class ExportModel(BaseModel):
    """Of what a tenant's export consists. Each part's last line is its manifest: how many rows of what, and their SHA-256."""

    tenant_id: UUID
    status: TenantStatus
    parts: list[PartModel]


@ROUTES.get("/v1/tenants/{tenant_id}/export", response_model=ExportModel)
@guard(OPERATOR, instead=OWNER, sees=tenant_of_path)
async def read_export(call: Caller, tenant_id: UUID) -> Response:
    """Where all that is kept of a tenant is to be had, service by service. It stands still once the tenant is closing."""
    tenant = await tenant_of_path(call)
    parts = [PartModel(service=service, path=f"/v1/{service}-exports/{tenant_id}") for service in SERVICES]
    return reply(200, ExportModel(tenant_id=tenant_id, status=tenant.status, parts=parts))
