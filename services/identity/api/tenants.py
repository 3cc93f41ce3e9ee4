"""Tenants, for the platform's operators."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from libs.common.cells import MAIN
from libs.common.choices import MOST_ORIGINS, ORIGIN
from libs.common.clock import NIL, PLATFORM, new_id
from libs.common.contracts.external import NAMED, WRITTEN
from libs.common.errors import ConflictError, ForeignError, NotFoundError, RejectedError
from libs.common.http.paging import Limit, Page, Paging
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, reply
from libs.common.messaging.idempotency import Answer, Replayed
from libs.common.money import CURRENCIES
from libs.common.settings import CellName
from services import SERVICES
from services.identity import repository
from services.identity.api.desk import Desk
from services.identity.api.invitations import Email, InvitationModel, invitation_model
from services.identity.api.storefronts import SLUG, Look
from services.identity.domain.member import email_key
from services.identity.domain.tenant import PROVISIONERS, Tenant, TenantStatus
from services.identity.handlers import AskOwner, ChangeTenant, OnboardTenant

ROUTES = Routes(Facing.CUSTOMERS)

Slug = Annotated[str, Query(pattern=SLUG)]


class NewTenant(BaseModel):
    """A tenant to be onboarded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slug: Annotated[str, Field(pattern=SLUG, examples=["corner-shop"]), NAMED]
    name: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,200}$"), WRITTEN]
    currency: Annotated[str, Field(examples=["GBP"])]
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$", examples=["GB"])]
    admin_email: Email
    cell: Annotated[CellName, Field(description="Where it is served from. This installation must have it")] = MAIN


Rate = Annotated[int, Field(ge=1, le=100_000)]


class ProviderLimits(BaseModel):
    """How many calls a second the payment provider is to see of this tenant's account."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_second: Rate
    endpoint_per_second: Annotated[Rate | None, Field(description="Of each endpoint. Absent: the same")] = None


class PayLater(BaseModel):
    """What may be reserved by those who say `later` and have paid nothing. Who pays is never held up by it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    guests: Annotated[bool, Field(strict=True, description="Guests may")] = False
    share_percent: Annotated[
        int, Field(ge=0, le=100, strict=True, description="So much of a product's stock all of them together may hold")
    ] = 50
    reservations_per_buyer: Annotated[
        int, Field(ge=1, le=1_000, strict=True, description="Of a product, by one shopper, e-mail address or shipping address")
    ] = 3


class CardTesting(BaseModel):
    """At how many refused cards within the window the next payment has to wait: 429, before the provider is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window_seconds: Annotated[int, Field(ge=60, le=3_600, strict=True)] = 600
    per_subject: Annotated[int, Field(ge=1, le=50, strict=True, description="Of one shopper")] = 5
    per_address: Annotated[
        int, Field(ge=1, le=1_000, strict=True, description="Of guests at one address, less what was paid")
    ] = 15
    per_tenant: Annotated[
        int, Field(ge=1, le=100_000, strict=True, description="Of the shop: beyond it, guests have a third of the two above")
    ] = 100
    challenge_percent: Annotated[
        int, Field(ge=1, le=100, strict=True, description="At this share of the bounds 3-D Secure is asked for first")
    ] = 60


class Limits(BaseModel):
    """How much may be asked for in this shop. The platform's own limits stay: a tenant chooses less, never more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject_per_second: Annotated[int | None, Field(ge=1, le=10_000, strict=True, description="By one shopper")] = None
    checkouts_per_minute: Annotated[int | None, Field(ge=1, le=10_000, strict=True, description="Begun by one shopper")] = None
    tenant_per_second: Annotated[
        int | None, Field(ge=1, le=100_000, strict=True, description="By all of its shoppers, staff and machines")
    ] = None


Origin = Annotated[str, StringConstraints(pattern=f"^(?:{ORIGIN.pattern})$", max_length=300)]


class Settings(BaseModel):
    """What a tenant may choose. One that is not named stays as it is; null lets go of the choice."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    capture: Annotated[
        Literal["on-confirmation", "on-shipment"] | None,
        Field(description="When money that is held is taken; by default when the order is confirmed"),
    ] = None
    prices_include_tax: Annotated[
        bool | None, Field(strict=True, description="Tax is part of the prices: shown, and not added. By default it is added")
    ] = None
    tax_rounding: Annotated[
        Literal["line", "total"] | None,
        Field(description="Where fractions of tax are rounded, half to even: on each line (the default) or once an order"),
    ] = None
    shipping_required: Annotated[
        bool | None, Field(strict=True, description="A checkout must name a shipping method. By default it need not")
    ] = None
    provider_limits: ProviderLimits | None = None
    pay_later: PayLater | None = None
    card_testing: CardTesting | None = None
    limits: Limits | None = None
    allowed_origins: Annotated[
        list[Origin] | None,
        Field(
            max_length=MOST_ORIGINS,
            description="Where its own pages are that may ask us from a browser (CORS): https, or this machine for trials",
            examples=[["https://shop.example.com"]],
        ),
    ] = None
    storefront: Annotated[
        Look | None, Field(description="How the shop looks; anybody may read it, at `GET /v1/storefronts/{slug}`")
    ] = None
    require_totp: Annotated[
        bool | None,
        Field(strict=True, description="Nobody of the staff signs in without a second factor. By default everybody chooses"),
    ] = None


class TenantChange(BaseModel):
    """What is to change of a tenant."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,200}$"), WRITTEN] | None = None
    settings: Settings = Settings()


class TenantModel(BaseModel):
    """A tenant as operators see it. `ready` says which services can serve it."""

    tenant_id: UUID
    slug: str
    name: str
    status: TenantStatus
    currency: str
    country: str
    version: int
    ready: dict[str, bool]
    acknowledged: Annotated[dict[str, bool], Field(description="Which services know of the status that an operator chose last")]
    settings: dict[str, Any]
    cell: Annotated[str, Field(description="Where it is served from")]
    erased: Annotated[dict[str, bool], Field(description="Which services have nothing of it any more")]
    erased_at: datetime | None = None
    export_sha256: Annotated[
        str | None,
        Field(
            description="Of one that is erased: SHA-256 of the lines `service sha256` of its last export's parts, in their order"
        ),
    ] = None


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
        acknowledged={service: not tenant.told_version or service in tenant.acknowledged for service in PROVISIONERS},
        settings=tenant.settings,
        cell=tenant.cell,
        erased={service: service in tenant.erased_by for service in SERVICES},
        erased_at=tenant.erased_at,
        export_sha256=tenant.export_sha256,
    )


class OnboardedModel(TenantModel):
    """A tenant that has just been made, and the invitation of its owner for as long as nobody has taken it."""

    owner: InvitationModel | None = None


async def load_tenant(call: Call, tenant_id: UUID) -> Tenant:
    """One tenant. Who may ask has been settled by the route."""
    async with call.transaction(tenant_id) as connection:
        found = await repository.TENANTS.load(connection, [(tenant_id, tenant_id)], lock=False)
    if not found:
        raise NotFoundError("tenant-not-found", "there is no such tenant")
    return found[0]


async def _tenant_ids(call: Call, *, after: UUID = NIL, limit: int, slug: str | None) -> list[UUID]:
    async with call.transaction(PLATFORM) as connection:
        return [*await repository.tenant_ids(connection, after=after, limit=limit, slug=slug)]


async def awaited(call: Call, tenant_id: UUID, is_settled: Callable[[Tenant], bool]) -> Tenant:
    """The tenant once that is so, or as it is when the caller's patience ends."""
    hints, deadline = call.service.hints, asyncio.get_running_loop().time() + call.wait_seconds
    is_patient = call.wait_seconds > 0
    while True:
        with hints.expect(str(tenant_id)) as hinted:
            tenant = await load_tenant(call, tenant_id)
            if is_settled(tenant) or not is_patient:
                return tenant
            is_patient = await hints.comes(hinted, deadline)


def _remember(tenant: Tenant) -> Answer:
    """A tenant lives on, so its id is what is remembered: a replay shows it as it is then."""
    return Answer(202, headers={"Location": f"/v1/tenants/{tenant.tenant_id}"})


def _asked_owner(call: Call, tenant_id: UUID, email: str) -> AskOwner:
    invitation_id = new_id()
    token, letter = call.service.shared(Desk).token(tenant_id, invitation_id, email)
    return AskOwner(invitation_id=invitation_id, token=token, letter=letter)


async def _onboarded_model(call: Call, tenant: Tenant) -> OnboardedModel:
    """A tenant with its owner's invitation, which whoever onboards may see again until it is taken."""
    async with call.transaction(tenant.tenant_id) as connection:
        invited = await repository.invitation_to(connection, tenant.tenant_id, email_key(tenant.admin_email))
    owner = None if invited is None else invitation_model(invited, call.service.shared(Desk).shown(invited))
    return OnboardedModel(**tenant_model(tenant).model_dump(), owner=owner)


@ROUTES.post("/v1/tenants", status_code=202, response_model=OnboardedModel, responses={200: {"model": OnboardedModel}})
@guard("tenants:manage", idempotent=True, platform_only=True)
async def onboard_tenant(call: Caller, body: NewTenant) -> Response:
    """Make a tenant, and invite its owner. It is active once every service has said that it can serve it."""
    if body.currency not in CURRENCIES:
        raise RejectedError("currency-not-supported", f"{body.currency!r} is not a currency this platform sells in")
    tenant_id = new_id()
    command = OnboardTenant(**body.model_dump(), owner=_asked_owner(call, tenant_id, body.admin_email))
    try:
        outcome = await call.execute_once(command, _remember, tenant_id=tenant_id)
    except ConflictError as error:
        if error.code != "slug-taken":
            raise
        holders = await _tenant_ids(call, limit=1, slug=body.slug)
        members = {"tenant_id": str(holders[0])} if holders else {}
        raise ConflictError("slug-taken", f"another tenant is called {body.slug}", **members) from error
    replayed = {}
    if isinstance(outcome, Replayed):
        tenant_id = UUID(outcome.answer.headers["Location"].rpartition("/")[2])
        replayed = {"Idempotent-Replayed": "true"}
    tenant = await awaited(call, tenant_id, lambda tenant: tenant.is_news)
    headers = {"Location": f"/v1/tenants/{tenant_id}", "ETag": f'"{tenant.version}"', **replayed, **call.applied}
    return reply(200 if tenant.is_news else 202, await _onboarded_model(call, tenant), **headers)


@ROUTES.get("/v1/tenants", response_model=Page[TenantModel])
@guard("tenants:manage", platform_only=True)
async def list_tenants(call: Caller, slug: Slug | None = None, limit: Limit = 50, cursor: str | None = None) -> Response:
    """Every tenant, or the one of a slug."""
    asked = Paging(limit, cursor, UUID)
    ids = await _tenant_ids(call, after=asked.after[0] if asked.after else NIL, limit=asked.most, slug=slug)
    async with call.shell.database.transaction(ids) as connection:
        found = await repository.TENANTS.load(connection, [(tenant_id, tenant_id) for tenant_id in ids], lock=False)
    return asked.reply(found, tenant_model, lambda tenant: [tenant.tenant_id])


def _demand_own(call: Call, tenant_id: UUID) -> None:
    """The platform may look at every tenant, everybody else at their own."""
    if call.tenant_id not in {tenant_id, PLATFORM}:
        raise ForeignError("tenant-not-found", "there is no such tenant")


async def tenant_of_path(call: Call) -> Tenant:
    """The tenant of the path, if it is any of the caller's business."""
    tenant_id = UUID(call.request.path_params["tenant_id"])
    _demand_own(call, tenant_id)
    return await load_tenant(call, tenant_id)


@ROUTES.get("/v1/tenants/{tenant_id}", response_model=TenantModel)
@guard("tenants:manage", instead="settings:read", sees=tenant_of_path)
async def read_tenant(call: Caller, tenant_id: UUID) -> Response:
    """One tenant: any for the platform, its own for everybody else."""
    _demand_own(call, tenant_id)
    tenant = await load_tenant(call, tenant_id)
    return reply(200, tenant_model(tenant), ETag=f'"{tenant.version}"')


@ROUTES.patch("/v1/tenants/{tenant_id}", response_model=TenantModel)
@guard("tenants:manage", instead="settings:write", sees=tenant_of_path)
async def change_tenant(call: Caller, tenant_id: UUID, body: TenantChange) -> Response:
    """Change a tenant's name or settings: any for the platform, its own for everybody else."""
    _demand_own(call, tenant_id)
    chosen = body.settings.model_dump(mode="json", exclude_none=True)
    settings = {name: chosen.get(name) for name in body.settings.model_fields_set}
    command = ChangeTenant(name=body.name, settings=settings, if_match=call.if_match())
    tenant: Tenant = await call.execute(command, tenant_id=tenant_id)
    return reply(200, tenant_model(tenant), ETag=f'"{tenant.version}"')
