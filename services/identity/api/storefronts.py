"""Storefronts: what a page must know of a shop before anybody has come in. Public, and nothing of it is anybody's secret."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import Path, Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.clock import PLATFORM
from libs.common.contracts.external import WRITTEN
from libs.common.errors import NotFoundError
from libs.common.http.routes import Call, Caller, Facing, Routes, for_strangers, reply
from services.identity import repository
from services.identity.domain.tenant import Tenant, TenantStatus

ROUTES = Routes(Facing.CUSTOMERS)
SLUG = r"^[a-z0-9][a-z0-9-]{1,62}$"
_ONE_LINE = r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"
FRESH_SECONDS = 60

Slug = Annotated[str, Path(pattern=SLUG)]


class Look(BaseModel):
    """How a shop looks. What it does not say, the page decides; ink on the accent is chosen so that it can be read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accent: (
        Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$", description="A colour, as CSS has it", examples=["#0f6b5c"])] | None
    ) = None
    logo_text: Annotated[str, Field(pattern=_ONE_LINE, max_length=40), WRITTEN] | None = None
    tagline: Annotated[str, Field(pattern=_ONE_LINE, max_length=120), WRITTEN] | None = None
    typeface: Literal["sans", "serif"] | None = None
    corners: Literal["round", "square"] | None = None


class StorefrontModel(BaseModel):
    """A shop, as anybody may see it who knows its name."""

    tenant_id: UUID
    slug: str
    name: str
    currency: str
    country: str
    look: Look


def storefront_model(tenant: Tenant) -> StorefrontModel:
    """A shop for an answer."""
    return StorefrontModel(
        tenant_id=tenant.tenant_id,
        slug=tenant.slug,
        name=tenant.name,
        currency=tenant.currency,
        country=tenant.country,
        look=Look(**tenant.settings.get("storefront", {})),
    )


async def _of_slug(call: Call, slug: str) -> Tenant | None:
    async with call.transaction(PLATFORM) as connection:
        ids = await repository.tenant_ids(connection, after=PLATFORM, limit=1, slug=slug)
    if not ids:
        return None
    async with call.transaction(ids[0]) as connection:
        found = await repository.TENANTS.load(connection, [(ids[0], ids[0])], lock=False)
    return found[0] if found else None


@ROUTES.get("/v1/storefronts/{slug}", response_model=StorefrontModel)
@for_strangers
async def read_storefront(call: Caller, slug: Slug) -> Response:
    """A shop by its name. One that lets no buyers in is as absent as none."""
    rates = call.service.rates
    rates.demand_not_made_up(slug, call.address)
    tenant = await _of_slug(call, slug)
    if tenant is None or tenant.status is not TenantStatus.ACTIVE:
        rates.missed(call.address)
        raise NotFoundError("storefront-not-found", "there is no such shop, or it lets nobody in")
    rates.found(slug)
    return reply(200, storefront_model(tenant), Cache_Control=f"public, max-age={FRESH_SECONDS}", ETag=f'"{tenant.version}"')
