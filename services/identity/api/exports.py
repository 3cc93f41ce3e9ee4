"""A tenant's own, to be taken away: what identity keeps of it, and where the other parts are to be had."""

from uuid import UUID

from fastapi import Response
from pydantic import BaseModel

from libs.common.http.exports import OPERATOR, OWNER, export_routes, parts_of_export
from libs.common.http.routes import Caller, Routes, guard, reply
from services import SERVICES
from services.identity import tables
from services.identity.api.tenants import tenant_of_path

WITHHELD = {
    "api_key": ["digest"],
    "client": ["secrets"],
    "session": ["digest", "previous_digest"],
    "member": ["password"],
    "invitation": ["nonce", "digest"],
}
"""What proves who somebody is. Sealed keys and digests in bytes are never taken away, here or elsewhere."""
LEFT_OUT = ["authorization_code", "password_reset", "second_factor", "service_secret", "signing_key"]
"""Codes that live for a minute or an hour, what they are made with, and the platform's own secrets."""

ROUTES = Routes()
ROUTES.include_router(export_routes("identity", parts_of_export(tables.METADATA, WITHHELD, LEFT_OUT)))


class PartModel(BaseModel):
    """One service's part."""

    service: str
    path: str


class ExportModel(BaseModel):
    """Of what a tenant's export consists. Each part's last line is its manifest: how many rows of what, and their SHA-256."""

    tenant_id: UUID
    status: str
    parts: list[PartModel]


@ROUTES.get("/v1/tenants/{tenant_id}/export", response_model=ExportModel)
@guard(OPERATOR, instead=OWNER, sees=tenant_of_path)
async def read_export(call: Caller, tenant_id: UUID) -> Response:
    """Where all that is kept of a tenant is to be had, service by service. It stands still once the tenant is closing."""
    tenant = await tenant_of_path(call)
    parts = [PartModel(service=service, path=f"/v1/{service}-exports/{tenant_id}") for service in SERVICES]
    return reply(200, ExportModel(tenant_id=tenant_id, status=tenant.status, parts=parts))
