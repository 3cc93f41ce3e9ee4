"""What tenants configure: their own settings, shipping methods, tax rates and stock policies, each for itself alone."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import orjson
import pytest

from libs.common.auth import CLIENT, PLATFORM_OPERATOR
from libs.common.clock import PLATFORM
from libs.common.messaging.shell import Shell
from services.identity.handlers import OnboardTenant
from tests.shared.callers import Person, edge, message, onboard, problem
from tests.shared.places import Places

Edge = tuple[httpx.AsyncClient, Shell]

POST: dict[str, Any] = {
    "name": "Post",
    "kind": "weight",
    "currency": "GBP",
    "rates": [
        {"countries": ["GB"], "up_to": 1_000, "amount_minor": 300},
        {"countries": ["GB"], "amount_minor": 700},
        {"amount_minor": 2_000},
    ],
}


@pytest.fixture
async def checkout(shared: Places) -> AsyncIterator[Edge]:
    async with edge(shared("checkout")) as pair:
        yield pair


@pytest.fixture
async def identity(shared: Places) -> AsyncIterator[Edge]:
    async with edge(shared("identity")) as pair:
        yield pair


async def _ask(client: httpx.AsyncClient, who: Person, method: str, path: str, body: Any = None, **headers: str) -> Any:
    return await client.request(method, path, json=body, headers={**who.authorization, **headers})


async def test_a_shipping_method_is_put_read_listed_and_gone_and_comes_back_anew(checkout: Edge) -> None:
    client, shell = checkout
    staff = Person(await onboard(shell), role=CLIENT)
    put = await _ask(client, staff, "PUT", "/v1/shipping-methods/post", POST)
    assert (put.status_code, put.json()) == (200, {"code": "post", **POST})
    assert (await _ask(client, staff, "PUT", "/v1/shipping-methods/post", POST)).headers["ETag"] == put.headers["ETag"]
    await _ask(client, staff, "PUT", "/v1/shipping-methods/air", {**POST, "kind": "flat", "rates": [{"amount_minor": 0}]})
    shopper = Person(staff.tenant_id)
    first = await _ask(client, shopper, "GET", "/v1/shipping-methods?limit=1")
    assert [method["code"] for method in first.json()["items"]] == ["air"]
    rest = await _ask(client, shopper, "GET", f"/v1/shipping-methods?cursor={first.json()['next_cursor']}")
    assert (rest.json()["items"], rest.json()["next_cursor"]) == ([{"code": "post", **POST}], None)
    assert (await _ask(client, staff, "DELETE", "/v1/shipping-methods/post")).status_code == 204
    for method in ("GET", "DELETE"):
        assert (await _ask(client, staff, method, "/v1/shipping-methods/post")).status_code == 404
    again = await _ask(client, staff, "PUT", "/v1/shipping-methods/post", POST)
    assert int(again.headers["ETag"].strip('"')) > int(put.headers["ETag"].strip('"')), "no version is ever used twice"


async def test_tax_rates_are_put_read_listed_in_order_and_gone(checkout: Edge) -> None:
    client, shell = checkout
    staff = Person(await onboard(shell), role=CLIENT)
    places = ["DE/books", "GB/*", "GB/food/cold drinks", "GB/shipping"]
    for place in places:
        put = await _ask(client, staff, "PUT", f"/v1/tax-rates/{place}", {"name": "VAT", "rate": "7.70"})
        country, _, category = place.partition("/")
        assert (put.status_code, put.json()) == (200, {"country": country, "category": category, "name": "VAT", "rate": "7.70"})
        assert (await _ask(client, staff, "GET", f"/v1/tax-rates/{place}")).json() == put.json()
    found: list[str] = []
    cursor = ""
    while True:
        listed = (await _ask(client, staff, "GET", f"/v1/tax-rates?limit=1{cursor}")).json()
        found += [f"{rate['country']}/{rate['category']}" for rate in listed["items"]]
        if listed["next_cursor"] is None:
            break
        cursor = f"&cursor={listed['next_cursor']}"
    assert sorted(found) == sorted(places)
    assert len((await _ask(client, staff, "GET", "/v1/tax-rates?country=GB")).json()["items"]) == 3
    assert (await _ask(client, staff, "DELETE", "/v1/tax-rates/GB/shipping")).status_code == 204
    for method in ("GET", "DELETE"):
        assert (await _ask(client, staff, method, "/v1/tax-rates/GB/shipping")).status_code == 404


async def test_a_stock_policy_is_set_for_what_inventory_never_counted_too(checkout: Edge) -> None:
    client, shell = checkout
    staff = Person(await onboard(shell), role=CLIENT)
    put = await _ask(client, staff, "PUT", "/v1/stock/ebook", {"policy": "untracked"})
    expected = {"sku": "ebook", "policy": "untracked", "on_hand": 0, "reserved": 0, "sold": 0, "backordered": 0, "locations": []}
    assert (put.status_code, put.json()) == (200, expected)
    assert (await _ask(client, staff, "GET", "/v1/stock/ebook")).json() == expected


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/shipping-methods/a%20b", POST, 404, "not-found"),
        ("/v1/shipping-methods/a", {**POST, "currency": "XXX"}, 422, "schema"),
        ("/v1/shipping-methods/a", {**POST, "kind": "distance"}, 422, "schema"),
        ("/v1/shipping-methods/a", {**POST, "rates": []}, 422, "schema"),
        ("/v1/shipping-methods/a", {**POST, "rates": [{"amount_minor": -1}]}, 422, "schema"),
        ("/v1/shipping-methods/a", {**POST, "rates": [{"countries": ["ZZ"], "amount_minor": 1}]}, 422, "schema"),
        ("/v1/shipping-methods/a", {**POST, "rates": [{"amount_minor": 1}] * 2}, 422, "ambiguous-rates"),
        ("/v1/shipping-methods/a", {**POST, "kind": "flat"}, 422, "flat-rate-limit"),
        ("/v1/shipping-methods/a", {**POST, "name": "\x00"}, 422, "schema"),
        ("/v1/shipping-methods/a", {**POST, "speed": 1}, 422, "schema"),
        ("/v1/tax-rates/ZZ/food", {"name": "VAT", "rate": "20"}, 422, "country-unknown"),
        ("/v1/tax-rates/gb/food", {"name": "VAT", "rate": "20"}, 404, "not-found"),
        ("/v1/tax-rates/GB/food", {"name": "VAT", "rate": "100.1"}, 422, "schema"),
        ("/v1/tax-rates/GB/food", {"name": "VAT", "rate": "-1"}, 422, "schema"),
        ("/v1/tax-rates/GB/food", {"name": "VAT", "rate": "NaN"}, 422, "schema"),
        ("/v1/tax-rates/GB/food", {"name": " ", "rate": "1"}, 422, "schema"),
        ("/v1/stock/tea", {"policy": "guess"}, 422, "schema"),
        ("/v1/stock/tea", {"on_hand": 5}, 422, "schema"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_a_code(checkout: Edge, path: str, body: Any, status: int, code: str) -> None:
    client, shell = checkout
    staff = Person(await onboard(shell), role=CLIENT)
    refused = await _ask(client, staff, "PUT", path, body)
    assert (refused.status_code, problem(refused)["code"]) == (status, code)


async def test_shoppers_change_nothing_and_another_tenant_sees_nothing_of_it(checkout: Edge) -> None:
    client, shell = checkout
    staff, stranger = Person(await onboard(shell), role=CLIENT), Person(await onboard(shell), role=CLIENT)
    puts = {
        "/v1/shipping-methods/own": POST,
        "/v1/tax-rates/GB/own": {"name": "VAT", "rate": "20"},
        "/v1/stock/own": {"policy": "backorder"},
    }
    for path, body in puts.items():
        assert (await _ask(client, Person(staff.tenant_id), "PUT", path, body)).status_code == 403
        assert (await _ask(client, staff, "PUT", path, body)).status_code == 200
        assert (await _ask(client, stranger, "GET", path)).status_code == 404
        collection = "/".join(path.split("/")[:3])
        assert (await _ask(client, stranger, "GET", collection)).json()["items"] == []


async def test_a_checkout_that_could_never_be_sent_is_refused_at_once_and_the_refusal_stores_nothing(checkout: Edge) -> None:
    client, shell = checkout
    staff = Person(await onboard(shell), role=CLIENT)
    await _ask(client, staff, "PUT", "/v1/shipping-methods/gb", {**POST, "rates": POST["rates"][:2]})
    address = {"name": "A", "line1": "1 Street", "city": "London", "postal_code": "N1", "country": "GB"}
    body: dict[str, Any] = {"cart_id": str(uuid4()), "payment": {"method": "pm_card_visa"}}
    refusals: dict[str, dict[str, Any]] = {
        "shipping-method-unknown": {"shipping_method": "nope"},
        "shipping-address-required": {"shipping_method": "gb"},
        "shipping-unavailable": {"shipping_method": "gb", "shipping_address": {**address, "country": "FR"}},
        "schema": {"shipping_method": "gb", "shipping_address": {**address, "country": "ZZ"}},
    }
    shopper, key = Person(staff.tenant_id), {"Idempotency-Key": "k"}
    for code, more in refusals.items():
        refused = await _ask(client, shopper, "POST", "/v1/checkouts", {**body, **more}, **key)
        assert (refused.status_code, problem(refused)["code"]) == (422, code)
    without = {**address, "postal_code": " "}
    refused = await _ask(client, shopper, "POST", "/v1/checkouts", {**body, "shipping_address": without}, **key)
    assert refused.json()["errors"][0]["pointer"] == "/shipping_address/postal_code"
    wanted = {**body, "shipping_method": "gb", "shipping_address": address}
    assert (await _ask(client, shopper, "POST", "/v1/checkouts", wanted, **key)).status_code == 202


PLATFORM_OWNER = Person(PLATFORM, role=PLATFORM_OPERATOR)


async def _tenant(shell: Shell) -> UUID:
    tenant_id = uuid4()
    slug = f"t-{tenant_id.hex[:12]}"
    command = OnboardTenant(slug=slug, name="Shop", currency="GBP", country="GB", admin_email="a@shop.test")
    await shell.execute(message(command, tenant_id))
    return tenant_id


async def test_a_tenants_settings_are_changed_one_by_one_by_the_platform_and_by_its_own_staff(identity: Edge) -> None:
    client, shell = identity
    tenant_id = await _tenant(shell)
    path, staff = f"/v1/tenants/{tenant_id}", Person(tenant_id, role=CLIENT)
    limits = {"per_second": 500}
    changed = await _ask(
        client, PLATFORM_OWNER, "PATCH", path, {"settings": {"capture": "on-shipment", "provider_limits": limits}}
    )
    assert changed.status_code == 200
    changed = await _ask(
        client, staff, "PATCH", path, {"name": "Shoppe", "settings": {"prices_include_tax": True, "capture": None}}
    )
    assert changed.json()["settings"] == {"provider_limits": limits, "prices_include_tax": True}
    assert (changed.json()["name"], changed.json()["version"]) == ("Shoppe", 3)
    same = await _ask(client, staff, "PATCH", path, {"name": "Shoppe", "settings": {"prices_include_tax": True}})
    assert same.json()["version"] == 3, "what changes nothing is no news"
    assert (await _ask(client, staff, "GET", path)).json() == same.json()
    stale = await _ask(client, staff, "PATCH", path, {"name": "X"}, **{"If-Match": '"1"'})
    assert (stale.status_code, problem(stale)["version"]) == (412, 3)


async def test_a_change_of_settings_is_told_whole(shared: Places, identity: Edge) -> None:
    client, shell = identity
    tenant_id = await _tenant(shell)
    await _ask(
        client, Person(tenant_id, role=CLIENT), "PATCH", f"/v1/tenants/{tenant_id}", {"settings": {"tax_rounding": "total"}}
    )
    admin: asyncpg.Connection = await shared("identity").as_admin()
    try:
        told = await admin.fetch("SELECT payload FROM outbox_event WHERE tenant_id = $1 ORDER BY id", tenant_id)
    finally:
        await admin.close()
    first, second = (orjson.loads(row["payload"]) for row in told)
    assert (first["version"], first["settings"]) == (1, {})
    assert second == {**first, "version": 2, "settings": {"tax_rounding": "total"}}


@pytest.mark.parametrize(
    "settings",
    [
        {"colour": "red"},
        {"capture": "never"},
        {"prices_include_tax": "yes"},
        {"tax_rounding": "up"},
        {"provider_limits": {"per_second": 0}},
        {"provider_limits": {"per_second": 1, "burst": 2}},
    ],
)
async def test_a_setting_nobody_knows_or_could_keep_is_refused(identity: Edge, settings: dict[str, Any]) -> None:
    client, shell = identity
    tenant_id = await _tenant(shell)
    refused = await _ask(client, PLATFORM_OWNER, "PATCH", f"/v1/tenants/{tenant_id}", {"settings": settings})
    assert (refused.status_code, problem(refused)["code"]) == (422, "schema")


async def test_another_tenants_staff_and_shoppers_neither_see_nor_change_a_tenant(identity: Edge) -> None:
    client, shell = identity
    tenant_id, other = await _tenant(shell), await _tenant(shell)
    for method, body in (("GET", None), ("PATCH", {"name": "Mine"}), ("PATCH", {"name": "\x00"})):
        foreign = await _ask(client, Person(other, role=CLIENT), method, f"/v1/tenants/{tenant_id}", body)
        assert (foreign.status_code, problem(foreign)["code"]) == (404, "tenant-not-found")
        assert (await _ask(client, Person(tenant_id), method, f"/v1/tenants/{tenant_id}", body)).status_code == 403
    assert (await _ask(client, PLATFORM_OWNER, "PATCH", f"/v1/tenants/{uuid4()}", {"name": "X"})).status_code == 404
