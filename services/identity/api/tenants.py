"""Tenants, for the platform's operators."""

import asyncio
import time
from typing import Annotated
from uuid import UUID

from fastapi import Query, Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.clock import PLATFORM, new_id
from libs.common.errors import ConflictError, NotFoundError, RejectedError
from libs.common.http.paging import Page, decode_cursor, page
from libs.common.http.routes import Call, Caller, Routes, guard, reply
from libs.common.messaging.shell import Answer, Replayed
from libs.common.money import CURRENCIES
from services.identity import repository
from services.identity.domain.tenant import PROVISIONERS, Tenant
from services.identity.handlers import OnboardTenant

ROUTES = Routes()
NIL = UUID(int=0)
SLUG = r"^[a-z0-9][a-z0-9-]{1,62}$"

Limit = Annotated[int, Query(ge=1, le=200)]
Slug = Annotated[str, Query(pattern=SLUG)]


class NewTenant(BaseModel):
    """A tenant to be onboarded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slug: Annotated[str, Field(pattern=SLUG)]
    name: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")]
    currency: str
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
    admin_email: Annotated[str, Field(pattern=r"^[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+$", max_length=254)]


class TenantModel(BaseModel):
    """A tenant as operators see it. `ready` says which services can serve it."""

    tenant_id: UUID
    slug: str
    name: str
    status: str
    currency: str
    country: str
    version: int
    ready: dict[str, bool]


def tenant_model(tenant: Tenant) -> TenantModel:
    """A tenant for an answer."""
    return TenantModel(
        tenant_id=tenant.tenant_id,
        slug=tenant.slug,
        name=tenant.name,
        status=tenant.status,
        currency=tenant.currency,
        country=tenant.country,
        version=tenant.version,
        ready={service: service in tenant.provisioned for service in PROVISIONERS},
    )


async def load_tenant(call: Call, tenant_id: UUID) -> Tenant:
    """One tenant. Who may ask has been settled by the route."""
    async with call.shell.database.transaction([tenant_id]) as connection:
        found = await repository.TENANTS.load(connection, [(tenant_id, tenant_id)], lock=False)
    if not found:
        raise NotFoundError("tenant-not-found", "there is no such tenant")
    return found[0]


async def _tenant_ids(call: Call, *, after: UUID, limit: int, slug: str | None) -> list[UUID]:
    async with call.shell.database.transaction([PLATFORM]) as connection:
        return [*await repository.tenant_ids(connection, after=after, limit=limit, slug=slug)]


async def _settled(call: Call, tenant_id: UUID) -> Tenant:
    """The tenant once it has left provisioning, or as it is when the caller's patience ends."""
    deadline = time.monotonic() + call.wait_seconds
    while True:
        with call.service.hints.expect(str(tenant_id)) as hinted:
            tenant = await load_tenant(call, tenant_id)
            patience = deadline - time.monotonic()
            if tenant.is_news or patience <= 0:
                return tenant
            await asyncio.wait([hinted], timeout=patience)


def _remember(tenant: Tenant) -> Answer:
    """A tenant lives on, so its id is what is remembered: a replay shows it as it is then."""
    return Answer(202, headers={"Location": f"/v1/tenants/{tenant.tenant_id}"})


@ROUTES.post("/v1/tenants", status_code=202, response_model=TenantModel, responses={200: {"model": TenantModel}})
@guard("tenants:manage", idempotent=True)
async def onboard_tenant(call: Caller, body: NewTenant) -> Response:
    """Make a tenant. It is active once every service has said that it can serve it."""
    if body.currency not in CURRENCIES:
        raise RejectedError("currency-not-supported", f"{body.currency!r} is not a currency this platform sells in")
    tenant_id = new_id()
    try:
        outcome = await call.execute_once(OnboardTenant(**body.model_dump()), _remember, tenant_id=tenant_id)
    except ConflictError as error:
        if error.code != "slug-taken":
            raise
        holders = await _tenant_ids(call, after=NIL, limit=1, slug=body.slug)
        members = {"tenant_id": str(holders[0])} if holders else {}
        raise ConflictError("slug-taken", f"another tenant is called {body.slug}", **members) from error
    replayed = {}
    if isinstance(outcome, Replayed):
        tenant_id = UUID(outcome.answer.headers["Location"].rpartition("/")[2])
        replayed = {"Idempotent-Replayed": "true"}
    tenant = await _settled(call, tenant_id)
    headers = {"Location": f"/v1/tenants/{tenant_id}", "ETag": f'"{tenant.version}"', **replayed, **call.applied}
    return reply(200 if tenant.is_news else 202, tenant_model(tenant), **headers)


@ROUTES.get("/v1/tenants", response_model=Page[TenantModel])
@guard("tenants:manage")
async def list_tenants(call: Caller, slug: Slug | None = None, limit: Limit = 50, cursor: str | None = None) -> Response:
    """Every tenant, or the one of a slug."""
    after = decode_cursor(cursor, NIL, UUID)
    ids = await _tenant_ids(call, after=after, limit=limit + 1, slug=slug)
    async with call.shell.database.transaction(ids) as connection:
        found = await repository.TENANTS.load(connection, [(tenant_id, tenant_id) for tenant_id in ids], lock=False)
    return page([tenant_model(tenant) for tenant in found], limit, lambda tenant: str(tenant.tenant_id))


@ROUTES.get("/v1/tenants/{tenant_id}", response_model=TenantModel)
@guard("tenants:manage")
async def read_tenant(call: Caller, tenant_id: UUID) -> Response:
    """One tenant."""
    tenant = await load_tenant(call, tenant_id)
    return reply(200, tenant_model(tenant), ETag=f'"{tenant.version}"')
