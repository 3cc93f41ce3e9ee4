"""The edge as clients meet it: what is refused, in which order, and that a refusal gives nothing away."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from libs.common.auth import CLIENT
from libs.common.contracts.checkout import CheckoutRequested
from libs.common.messaging.shell import Shell
from tests.shared.callers import Person, edge, message, onboard, problem, sell
from tests.shared.places import Places

KEY = {"Idempotency-Key": "k"}
ABSENT = UUID(int=7)


class Shop:
    """The cart service with a tenant that sells tea, a shopper, and the shopper's cart."""

    def __init__(self, client: httpx.AsyncClient, shell: Shell, tenant_id: UUID) -> None:
        self.client = client
        self.shell = shell
        self.tenant_id = tenant_id
        self.shopper = Person(tenant_id)
        self.cart_id = uuid4()

    async def ask(self, method: str, path: str, who: Person | None = None, **request: Any) -> httpx.Response:
        person = who or self.shopper
        headers = {**person.authorization, **request.pop("headers", {})}
        return await self.client.request(method, path.format(cart=self.cart_id), headers=headers, **request)

    async def put_tea(self, quantity: Any = 2, **request: Any) -> httpx.Response:
        return await self.ask("PUT", "/v1/carts/{cart}/lines/tea", json={"quantity": quantity}, **request)


@pytest.fixture
async def shop(shared: Places) -> AsyncIterator[Shop]:
    async with edge(shared("cart")) as (client, shell):
        shop = Shop(client, shell, await onboard(shell))
        await sell(shell, shop.tenant_id, "tea", 250)
        assert (await shop.ask("PUT", "/v1/carts/{cart}")).status_code == 201
        yield shop


async def test_a_shopper_fills_a_cart(shop: Shop) -> None:
    put = await shop.put_tea(3)
    assert (put.status_code, put.headers["etag"]) == (201, '"2"')
    assert put.json()["line"] == {
        "sku": "tea",
        "name": "The tea",
        "quantity": 3,
        "unit_minor": 250,
        "discount_minor": 0,
        "total_minor": 750,
        "price_sequence": 2,
        "availability": "unknown",
    }
    again = await shop.put_tea(3)
    assert (again.status_code, again.headers["etag"]) == (200, '"2"')
    assert (await shop.put_tea(4, headers={"Prefer": "return=minimal"})).status_code == 204
    cart = await shop.ask("GET", "/v1/carts/{cart}")
    assert (cart.json()["total_minor"], cart.headers["etag"]) == (1000, '"3"')
    assert (await shop.ask("PUT", "/v1/carts/{cart}")).status_code == 200
    assert [item["id"] for item in (await shop.ask("GET", "/v1/carts")).json()["items"]] == [str(shop.cart_id)]


async def test_a_request_wrong_in_every_way_hears_of_one_wrong_at_a_time_in_the_contracts_order(shop: Shop) -> None:
    powerless = Person(shop.tenant_id, subject=shop.shopper.subject, scope=["carts:read"])
    absent, own = f"/v1/carts/{ABSENT}/lines", f"/v1/carts/{shop.cart_id}/lines"
    steps: list[tuple[int, str, str, dict[str, str], dict[str, Any]]] = [
        (401, "token-missing", absent, {}, {"content": b"{"}),
        (401, "invalid-token", absent, {"Authorization": "Bearer x.y.z"}, {"content": b"{"}),
        (400, "idempotency-key-missing", absent, powerless.authorization, {"content": b"{"}),
        (415, "unsupported-media-type", absent, {**powerless.authorization, **KEY}, {"content": b"{"}),
        (400, "not-json", absent, {**powerless.authorization, **KEY, "Content-Type": "application/json"}, {"content": b"{"}),
        (403, "permission-missing", absent, {**powerless.authorization, **KEY}, {"json": {"bad": 1}}),
        (404, "cart-not-found", absent, {**shop.shopper.authorization, **KEY}, {"json": {"bad": 1}}),
        (422, "schema", own, {**shop.shopper.authorization, **KEY}, {"json": {"bad": 1}}),
        (422, "product-unavailable", own, {**shop.shopper.authorization, **KEY}, {"json": {"sku": "gin", "quantity": 1}}),
    ]
    for status, code, path, headers, body in steps:
        refused = await shop.client.post(path, headers=headers, **body)
        assert (problem(refused)["code"], refused.status_code) == (code, status)
        assert ("www-authenticate" in refused.headers) == (status in {401, 403})
    added = await shop.ask("POST", own, headers=KEY, json={"sku": "tea", "quantity": 1})
    assert added.status_code == 200, "no refusal has used the key up"


async def test_rules_come_before_the_version_and_the_version_before_the_state(shop: Shop) -> None:
    await shop.put_tea()
    await shop.shell.execute(
        message(CheckoutRequested(checkout_id=ABSENT, cart_id=shop.cart_id, subject_id=shop.shopper.subject), shop.tenant_id)
    )
    stale, fresh = {"If-Match": '"1"'}, {"If-Match": '"3"'}
    gin = await shop.ask("PUT", "/v1/carts/{cart}/lines/gin", headers=stale, json={"quantity": 1})
    assert (gin.status_code, problem(gin)["code"]) == (422, "product-unavailable")
    no_line = await shop.ask("DELETE", "/v1/carts/{cart}/lines/gin", headers=stale)
    assert (no_line.status_code, problem(no_line)["code"]) == (404, "line-not-found")
    for answer in (await shop.put_tea(9, headers=stale), await shop.ask("DELETE", "/v1/carts/{cart}/lines", headers=stale)):
        assert (answer.status_code, problem(answer)["version"]) == (412, 3)
    for answer in (
        await shop.put_tea(9, headers=fresh),
        await shop.ask("DELETE", "/v1/carts/{cart}/lines/tea"),
        await shop.ask("PUT", "/v1/carts/{cart}/lines", json={"lines": []}),
        await shop.ask("POST", "/v1/carts/{cart}/lines", headers=KEY, json={"sku": "tea", "quantity": 1}),
    ):
        body = problem(answer)
        assert (answer.status_code, body["state"], body["checkout_id"]) == (409, "frozen", str(ABSENT))
    assert problem(await shop.put_tea(headers={"If-Match": "W/3"}))["code"] == "bad-if-match"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"quantity": 0}, "/quantity"),
        ({"quantity": 1_000_001}, "/quantity"),
        ({"quantity": 1.5}, "/quantity"),
        ({"quantity": "2"}, "/quantity"),
        ({"quantity": True}, "/quantity"),
        ({"quantity": 1, "price": 1}, "/price"),
        ({}, "/quantity"),
        ([], "/"),
        (None, "/"),
    ],
)
async def test_a_body_that_breaks_the_schema_is_told_where(shop: Shop, body: Any, pointer: str) -> None:
    refused = await shop.ask("PUT", "/v1/carts/{cart}/lines/tea", json=body)
    assert refused.status_code == 422
    assert [error["pointer"] for error in problem(refused)["errors"]] == [pointer]


async def test_a_body_too_large_is_refused_whether_it_says_so_or_not(shop: Shop) -> None:
    async def drip() -> AsyncIterator[bytes]:
        for _ in range(101):
            yield b" " * 10_000

    for content in (b" " * 1_000_001, drip()):
        headers = {"Content-Type": "application/json"}
        refused = await shop.ask("PUT", "/v1/carts/{cart}/lines/tea", headers=headers, content=content)
        assert (refused.status_code, problem(refused)["code"]) == (413, "body-too-large")


async def test_a_request_id_is_echoed_when_it_is_usable(shop: Shop) -> None:
    for path in ("/v1/carts/{cart}", f"/v1/carts/{ABSENT}", "/v1/nowhere"):
        assert (await shop.ask("GET", path, headers={"X-Request-Id": "mine-1"})).headers["x-request-id"] == "mine-1"
        for useless in ("two words", "x" * 129, ""):
            made = (await shop.ask("GET", path, headers={"X-Request-Id": useless})).headers["x-request-id"]
            assert UUID(made).version == 7


async def test_a_quoted_key_is_the_bare_one_and_a_bad_one_is_refused(shop: Shop) -> None:
    body = {"sku": "tea", "quantity": 1}
    first = await shop.ask("POST", "/v1/carts/{cart}/lines", headers=KEY, json=body)
    again = await shop.ask(
        "POST", "/v1/carts/{cart}/lines", headers={"Idempotency-Key": '"k"'}, json=dict(reversed(body.items()))
    )
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    assert "idempotent-replayed" not in first.headers
    other = await shop.ask("POST", "/v1/carts/{cart}/lines", headers=KEY, json={"sku": "tea", "quantity": 2})
    assert (other.status_code, problem(other)["code"]) == (422, "idempotency-key-reused")
    for bad in ("", '""', "x" * 256, "two words", "é".encode()):
        refused = await shop.ask("POST", "/v1/carts/{cart}/lines", headers={"Idempotency-Key": bad}, json=body)
        assert (refused.status_code, problem(refused)["code"]) == (400, "bad-idempotency-key")
    assert (await shop.ask("GET", "/v1/carts/{cart}")).json()["total_minor"] == 250


def _alike(response: httpx.Response, cart_id: UUID) -> tuple[int, bytes, dict[str, str]]:
    """An answer without the id that was asked for."""
    return response.status_code, response.content.replace(str(cart_id).encode(), b"ID"), dict(response.headers)


async def test_anothers_cart_and_another_tenants_are_as_absent_as_none(shop: Shop) -> None:
    await shop.put_tea()
    strangers = [Person(shop.tenant_id), Person(await onboard(shop.shell)), Person(uuid4(), role=CLIENT)]
    requests: list[tuple[str, str, Any]] = [
        ("GET", "", None),
        ("PUT", "/lines/tea", {"quantity": 1}),
        ("PUT", "/lines/tea", {"quantity": 0}),
        ("PUT", "/lines", {"lines": []}),
        ("POST", "/lines", {"sku": "tea", "quantity": 1}),
        ("POST", "/lines", {"nonsense": True}),
        ("DELETE", "/lines/tea", None),
        ("DELETE", "/lines", None),
    ]
    headers = {**KEY, "X-Request-Id": "same", "If-Match": '"1"'}
    for method, rest, body in requests:
        extra = {"json": body} if body is not None else {}
        absent = await shop.ask(method, f"/v1/carts/{ABSENT}{rest}", headers=headers, **extra)
        assert problem(absent)["code"] == "cart-not-found"
        for stranger in strangers:
            theirs = await shop.ask(method, "/v1/carts/{cart}" + rest, stranger, headers=headers, **extra)
            assert _alike(theirs, shop.cart_id) == _alike(absent, ABSENT), f"{method} {rest}"
    assert (await shop.ask("GET", "/v1/carts/{cart}")).headers["etag"] == '"2"'
    staff = Person(shop.tenant_id, role=CLIENT)
    assert (await shop.ask("GET", "/v1/carts/{cart}", staff)).status_code == 200


async def test_an_id_that_is_anothers_is_not_available_and_that_is_all_one_learns(shop: Shop) -> None:
    headers = {"X-Request-Id": "same"}
    answers = []
    for stranger in (Person(shop.tenant_id), Person(await onboard(shop.shell)), Person(shop.tenant_id, role=CLIENT)):
        taken = await shop.ask("PUT", "/v1/carts/{cart}", stranger, headers=headers)
        assert taken.status_code == 409
        assert set(problem(taken)) == {"type", "title", "status", "detail", "instance", "code", "request_id"}
        assert problem(taken)["code"] == "id-not-available"
        answers.append(_alike(taken, shop.cart_id))
    assert answers[0] == answers[1] == answers[2]


async def test_a_path_that_cannot_be_anything_is_not_found_and_other_methods_are_not_allowed(shop: Shop) -> None:
    for path in ("/v1/carts/not-an-id", "/v1/nowhere", "/v1/products/..%2Fetc", "/v1/products/unknown"):
        assert problem(await shop.ask("GET", path))["status"] == 404
    refused = await shop.ask("PATCH", "/v1/products")
    assert (refused.status_code, problem(refused)["code"]) == (405, "method-not-allowed")


async def test_a_currency_that_nobody_sells_in_is_refused(shop: Shop) -> None:
    refused = await shop.ask("POST", "/v1/carts", json={"currency": "XXX"})
    assert (refused.status_code, problem(refused)["code"]) == (422, "currency-not-supported")
    unpriced = await shop.ask("POST", "/v1/carts", json={"currency": "JPY"})
    refused = await shop.ask("PUT", f"{unpriced.headers['location']}/lines/tea", json={"quantity": 1})
    assert (refused.status_code, problem(refused)["code"]) == (422, "product-unavailable")


async def test_a_cart_never_comes_to_more_than_any_order_could(shop: Shop) -> None:
    await sell(shop.shell, shop.tenant_id, "moon", 9_000_000_000_000_000)
    assert (await shop.ask("PUT", "/v1/carts/{cart}/lines/moon", json={"quantity": 1})).status_code == 201
    for answer in (await shop.ask("PUT", "/v1/carts/{cart}/lines/moon", json={"quantity": 2}), await shop.put_tea()):
        assert (answer.status_code, problem(answer)["code"]) == (422, "total-too-large")


async def test_a_cart_for_a_tenant_still_unheard_of_can_be_tried_again(shop: Shop) -> None:
    refused = await shop.ask("POST", "/v1/carts", Person(uuid4()))
    assert (refused.status_code, problem(refused)["code"], refused.headers["retry-after"]) == (503, "tenant-not-ready", "1")


@pytest.mark.parametrize(
    "cursor", ["nonsense", "AA", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "LTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "_w", "é"]
)
async def test_a_cursor_nobody_gave_is_refused(shop: Shop, shared: Places, cursor: str) -> None:
    staff = Person(shop.tenant_id, role=CLIENT)
    for path in ("/v1/carts", "/v1/products"):
        answer = await shop.ask("GET", f"{path}?cursor={cursor}", staff)
        assert answer.status_code in {200, 400}
        assert path == "/v1/products" or problem(answer)["code"] == "bad-cursor"
    async with edge(shared("checkout")) as (client, _):
        for path in ("/v1/orders", "/v1/stock"):
            answer = await client.get(f"{path}?cursor={cursor}", headers=staff.authorization)
            assert answer.status_code in {200, 400}
            assert path == "/v1/stock" or problem(answer)["code"] == "bad-cursor"


async def test_pages_follow_one_another_to_the_end(shop: Shop) -> None:
    for number in range(5):
        await sell(shop.shell, shop.tenant_id, f"p{number}", 1)
    found: list[str] = []
    cursor = ""
    while cursor is not None:
        page = (await shop.ask("GET", f"/v1/products?limit=2{cursor and f'&cursor={cursor}'}")).json()
        found += [item["sku"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert found == ["p0", "p1", "p2", "p3", "p4", "tea"]
    for limit in ("0", "201", "x"):
        assert problem(await shop.ask("GET", f"/v1/products?limit={limit}"))["code"] == "schema"


async def test_a_checkout_is_one_however_it_is_asked_for(shared: Places) -> None:
    async with edge(shared("checkout")) as (client, shell):
        tenant_id = await onboard(shell)
        shopper = Person(tenant_id)
        body = {"cart_id": str(uuid4()), "payment": {"method": "pm_card_visa"}, "email": "a@b.test"}

        async def post(key: str, who: Person = shopper, **changes: Any) -> httpx.Response:
            headers = {**who.authorization, "Idempotency-Key": key}
            return await client.post("/v1/checkouts", headers=headers, json={**body, **changes})

        first = await post("one")
        assert (first.status_code, first.json()["state"]) == (202, "started")
        again = await post("one")
        assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
        other_key = await post("two")
        assert (other_key.content, "idempotent-replayed" in other_key.headers) == (first.content, False)
        other_body = await post("three", payment={"method": "pm_card_chargeDeclined"})
        assert (other_body.status_code, problem(other_body)["code"]) == (409, "checkout-exists")
        assert problem(other_body)["checkout_id"] == first.json()["id"]
        for changed in ({"payment": {"method": "pm_card_chargeDeclined"}}, {"email": "other@b.test"}):
            reused = await post("one", **changed)
            assert (reused.status_code, problem(reused)["code"]) == (422, "idempotency-key-reused")
        assert (await post("one", Person(tenant_id))).json()["id"] != first.json()["id"], "another subject's key is another key"

        absent = await client.get(f"/v1/checkouts/{ABSENT}", headers={**shopper.authorization, "X-Request-Id": "same"})
        for stranger in (Person(tenant_id), Person(uuid4())):
            theirs = await client.get(first.headers["location"], headers={**stranger.authorization, "X-Request-Id": "same"})
            assert theirs.status_code == 404
            assert _alike(theirs, UUID(first.json()["id"])) == _alike(absent, ABSENT)
        waited = await client.get(first.headers["location"], headers={**shopper.authorization, "Prefer": "wait=1"})
        assert (waited.status_code, waited.headers["preference-applied"]) == (200, "wait=1")
        staff_only = await client.get(f"/v1/stock/{'%00'}", headers=shopper.authorization)
        assert (staff_only.status_code, problem(staff_only)["permission"]) == (403, "stock:read")
