"""What anybody may know of a shop: how it is called and how it looks, while it lets buyers in."""

import time
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest

from libs.common.auth import CLIENT
from libs.common.contracts import cart, checkout, payments
from libs.common.http.rates import Rates
from libs.common.messaging.shell import Shell
from libs.common.settings import Settings
from services.identity.handlers import OnboardTenant
from services.identity.handlers.standing import CloseTenant
from tests.shared.callers import Person, edge, message, problem
from tests.shared.places import Places

LOOK = {"accent": "#7a1f3d", "logo_text": "Ada's tea", "tagline": "Leaves, and what to put them in", "typeface": "serif"}


async def _open_shop(shell: Shell) -> tuple[UUID, str]:
    tenant_id = uuid4()
    slug = f"t-{tenant_id.hex[:12]}"
    command = OnboardTenant(slug=slug, name="Shop", currency="JPY", country="JP", admin_email="a@shop.test")
    await shell.execute(message(command, tenant_id))
    for publisher, service in ((cart, "cart"), (checkout, "checkout"), (payments, "payments")):
        told = publisher.TenantProvisioned(tenant_id=tenant_id, service=service, tenant_version=1)
        await shell.execute(message(told, tenant_id))
    return tenant_id, slug


async def _dressed(client: httpx.AsyncClient, tenant_id: UUID, look: dict[str, Any]) -> httpx.Response:
    owner = Person(tenant_id, role=CLIENT)
    body = {"settings": {"storefront": look}}
    return await client.request("PATCH", f"/v1/tenants/{tenant_id}", json=body, headers=owner.authorization)


async def test_anybody_reads_a_shops_name_and_look_and_nothing_else_of_it(shared: Places) -> None:
    async with edge(shared("identity")) as (client, shell):
        tenant_id, slug = await _open_shop(shell)
        plain = await client.get(f"/v1/storefronts/{slug}")
        facts = {"tenant_id": str(tenant_id), "slug": slug, "name": "Shop", "currency": "JPY", "country": "JP"}
        assert (plain.status_code, plain.json()) == (200, {**facts, "look": {}})
        assert (await _dressed(client, tenant_id, LOOK)).status_code == 200
        dressed = await client.get(f"/v1/storefronts/{slug}")
        assert dressed.json() == {**facts, "look": LOOK}
        assert dressed.headers["etag"] != plain.headers["etag"]


@pytest.mark.parametrize(
    "look", [{"accent": "red"}, {"accent": "#7a1f3d;x:y"}, {"logo_text": " "}, {"logo_text": "a\nb"}, {"script": "x"}]
)
async def test_a_look_that_is_none_is_refused(shared: Places, look: dict[str, Any]) -> None:
    async with edge(shared("identity")) as (client, shell):
        refused = await _dressed(client, (await _open_shop(shell))[0], look)
        assert (refused.status_code, problem(refused)["code"]) == (422, "schema")


async def test_a_shop_that_lets_nobody_in_is_as_absent_as_none(shared: Places) -> None:
    async with edge(shared("identity")) as (client, shell):
        tenant_id, slug = await _open_shop(shell)
        await shell.execute(message(CloseTenant(), tenant_id))
        answers = [await client.get(f"/v1/storefronts/{name}") for name in (slug, "no-such-shop")]
        told = [(answer.status_code, problem(answer)["code"], problem(answer)["detail"]) for answer in answers]
        assert told[0] == told[1]
        assert told[0][:2] == (404, "storefront-not-found")


async def test_whoever_tries_names_out_has_to_wait_and_buyers_of_a_known_shop_do_not(shared: Places) -> None:
    names = ("address", "subject", "tenant")
    asked = ("rate_of_requests_per_subject", "rate_of_requests_per_tenant", "rate_of_checkouts")
    every = dict.fromkeys([*(f"rate_per_{name}" for name in names), *asked], "1/10000")
    stands_still = time.monotonic()
    few = Rates(cast("Settings", SimpleNamespace(**every, rate_of_misses="1/3")), lambda: stands_still)
    async with edge(shared("identity"), few) as (client, shell):
        _, slug = await _open_shop(shell)
        assert (await client.get(f"/v1/storefronts/{slug}")).status_code == 200
        guessed = [(await client.get(f"/v1/storefronts/guess-{number}")).status_code for number in range(8)]
        assert guessed[0] == 404
        assert 429 in guessed
        assert (await client.get(f"/v1/storefronts/{slug}")).status_code == 200
