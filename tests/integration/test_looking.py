"""A platform operator looks at one tenant with a token for that tenant alone, and has no client made for it."""

from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID, uuid4

import httpx
import jwt
import pytest

from libs.common.auth import PLATFORM_READER, ROLES
from libs.common.shared import Shared
from services.identity.app import _bootstrap
from services.identity.domain.client import PLATFORM_CLIENT
from tests.shared.callers import edge
from tests.shared.places import Places
from tests.shared.signing import issuer_of
from tests.shared.victims import client_of, tenant_of

SECRET = "the platform's own"


@dataclass
class Desk:
    """Identity, with a platform operator, and a tenant that has a client of its own."""

    http: httpx.AsyncClient
    tenant_id: UUID
    client_id: str

    async def grant(self, name: str, secret: str, **form: str) -> httpx.Response:
        basic = b64encode(f"{name}:{secret}".encode()).decode()
        body = {"grant_type": "client_credentials", **form}
        return await self.http.post("/oauth/token", data=body, headers={"Authorization": f"Basic {basic}"})

    async def looks(self, tenant_id: str, **form: str) -> httpx.Response:
        return await self.grant(PLATFORM_CLIENT, SECRET, tenant_id=tenant_id, **form)


@pytest.fixture
async def desk(shared: Places) -> AsyncIterator[Desk]:
    place = shared("identity")
    async with edge(place) as (http, shell):
        service = http._transport.app.state.service  # type: ignore[attr-defined]
        service.shared = Shared(await issuer_of(shell, service.verifier))
        await _bootstrap(place.url("owner"), SECRET)
        tenant_id = await tenant_of(shell, "identity")
        yield Desk(http, tenant_id, (await client_of(shell, tenant_id, ["orders:read"]))[0])


async def test_an_operator_who_names_a_tenant_may_look_at_that_one_and_do_nothing(desk: Desk) -> None:
    answer = await desk.looks(str(desk.tenant_id))
    assert answer.status_code == 200, answer.text
    told = jwt.decode(answer.json()["access_token"], options={"verify_signature": False})
    assert (told["tid"], told["client_id"], told["roles"]) == (str(desk.tenant_id), PLATFORM_CLIENT, [PLATFORM_READER])
    assert set(told["scope"].split()) == ROLES[PLATFORM_READER]
    assert not [permission for permission in ROLES[PLATFORM_READER] if not permission.endswith(":read")]
    less = await desk.looks(str(desk.tenant_id), scope="orders:read")
    assert less.json()["scope"] == "orders:read"
    more = await desk.looks(str(desk.tenant_id), scope="orders:read tenants:manage")
    assert (more.status_code, more.json()["error"]) == (400, "invalid_scope")


async def test_nobody_else_looks_and_nobody_at_what_is_no_tenant(desk: Desk) -> None:
    for name, secret, tenant_id in (
        (PLATFORM_CLIENT, SECRET, str(uuid4())),
        (PLATFORM_CLIENT, SECRET, str(UUID(int=0))),
        (PLATFORM_CLIENT, SECRET, "market"),
        (desk.client_id, "s", str(desk.tenant_id)),
        (desk.client_id, "s", str(uuid4())),
    ):
        refused = await desk.grant(name, secret, tenant_id=tenant_id)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_target"), tenant_id
    assert (await desk.grant(desk.client_id, "s")).json()["scope"] == "orders:read"
    assert (await desk.grant(PLATFORM_CLIENT, "guessed", tenant_id=str(desk.tenant_id))).status_code == 401
