"""All that a service keeps of one tenant, to be taken away: a row a line as JSON, and last what they come to.

Paths begin with the service's name, for the first segment after `/v1` belongs to one service. What proves who somebody is, and
what is sealed, stays here: whoever reads an export could do nothing with it but harm.
"""

import hashlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import orjson
from fastapi import Response
from fastapi.responses import StreamingResponse

from libs.common.clock import PLATFORM, now, rfc3339
from libs.common.database.holdings import Holdings, Part, pages
from libs.common.errors import ErasedError, ForeignError
from libs.common.http.routes import Call, Caller, Facing, Routes, guard

MEDIA_TYPE = "application/x-ndjson"
OPERATOR, OWNER = "tenants:manage", "exports:read"

Pages = AsyncIterator[tuple[Part, int, bytes]]


def export_routes(service: str, holdings: Holdings) -> Routes:
    """The route of one service."""
    routes = Routes(Facing.CUSTOMERS)

    async def export_tenant(call: Caller, tenant_id: UUID) -> Response:
        """All that this service keeps of a tenant, a row a line; the last counts them, and has the SHA-256 of those before."""
        demand_own(call, tenant_id)
        await _demand_whole(call, tenant_id)
        taken = pages(lambda: call.transaction(tenant_id), tenant_id, holdings.parts)
        first = await anext(taken)  # before the answer begins, so that it may still be a refusal
        counts = dict.fromkeys((part.table for part in holdings.parts), 0)
        return StreamingResponse(_lines(service, tenant_id, counts, first, taken), media_type=MEDIA_TYPE)

    path = f"/v1/{service}-exports/{{tenant_id}}"
    demanded = guard(OPERATOR, instead=OWNER, sees=_own_of_path, costly=True, streams=True)
    lines: dict[int | str, dict[str, Any]] = {200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}}
    routes.get(path, response_class=Response, responses=lines)(demanded(export_tenant))
    return routes


def demand_own(call: Call, tenant_id: UUID) -> None:
    """The platform takes every tenant's, everybody else their own. Raises ForeignError."""
    if call.tenant_id not in {tenant_id, PLATFORM}:
        raise ForeignError("tenant-not-found", "there is no such tenant")


async def _demand_whole(call: Call, tenant_id: UUID) -> None:
    """Raise ErasedError where part of it may be gone already: half of an export looks like a whole one."""
    async with call.transaction(tenant_id) as connection:
        if await call.service.shell_of(tenant_id).gone(connection, [tenant_id]):
            raise ErasedError("tenant-erased", "the tenant is being erased here, or is: nothing is to be taken away any more")


async def _own_of_path(call: Call) -> None:
    demand_own(call, UUID(call.request.path_params["tenant_id"]))


async def _lines(
    service: str, tenant_id: UUID, counts: dict[str, int], first: tuple[Part, int, bytes], rest: Pages
) -> AsyncIterator[bytes]:
    digest = hashlib.sha256()

    def taken(page: tuple[Part, int, bytes]) -> bytes:
        part, count, lines = page
        counts[part.table] += count
        digest.update(lines)
        return lines

    yield taken(first)
    async for page in rest:
        yield taken(page)
    told = {"service": service, "tenant_id": tenant_id, "at": rfc3339(now()), "counts": counts, "sha256": digest.hexdigest()}
    yield orjson.dumps({"manifest": told}) + b"\n"
