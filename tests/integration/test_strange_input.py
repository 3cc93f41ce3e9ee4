"""Real catalogues and real callers: SKUs of any script, text that no column keeps, keys that look like cards, carts too large."""

from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import asyncpg
import httpx
import orjson
import pytest

from libs.common.auth import CLIENT
from libs.common.contracts.cart import CartFrozen, FrozenLine
from libs.common.contracts.catalog import PriceChanged, ProductPublished
from libs.common.contracts.checkout import CheckoutRequested
from libs.common.contracts.inventory import StockAdjusted, StockCounted
from libs.common.errors import UnbelievableError
from libs.common.messaging.envelope import MAX_EVENT_BYTES
from libs.common.messaging.shell import Shell
from tests.shared.callers import Person, count, edge, message, onboard, problem, sell
from tests.shared.places import Place, Places

SKUS = [
    *("A/1", "a/b/c", "A+B", "Größe-Ä", "茶葉", "00042", "R&D", "50%", "50%25", "#7", "wh?t=1", "a.b..c", "...", "A B"),
    *("%2F", "a;b=c", "🍵", "é" * 64, "lines", "a\\b", '"q"', "tea:pot", "~", "x" * 64, "*", "a@b", "<b>", "1/lines", "ß"),
]
NO_SKUS = [" tea", "tea ", "te\na", "\u00a0tea", "the\u0301", "x" * 65, "te\u0085a", "te\x7fa"]


class Shop:
    """A service at its edge, with a tenant and a caller."""

    def __init__(self, place: Place, client: httpx.AsyncClient, shell: Shell, tenant_id: UUID) -> None:
        self.place, self.client, self.shell, self.tenant_id = place, client, shell, tenant_id
        self.staff = Person(tenant_id, role=CLIENT)

    async def ask(self, method: str, path: str, who: Person | None = None, **request: Any) -> httpx.Response:
        headers = {**(who or self.staff).authorization, **request.pop("headers", {})}
        return await self.client.request(method, path, headers=headers, **request)

    async def new_cart(self, who: Person | None = None) -> str:
        return f"/v1/carts/{(await self.ask('POST', '/v1/carts', who, json={})).json()['id']}"

    async def sell_many(self, names: Mapping[str, str], category: str = "things") -> None:
        for sku, name in names.items():
            await self.shell.execute(message(ProductPublished(sku=sku, name=name, category=category), self.tenant_id))
            price = PriceChanged(sku=sku, currency="GBP", unit_minor=100)
            await self.shell.execute(message(price, self.tenant_id, sequence=2))

    async def as_owner(self, statement: str, *arguments: Any) -> None:
        """Change a row by hand."""
        owner = await asyncpg.connect(self.place.url("app"))
        await owner.execute(f"BEGIN; SET LOCAL cartwright.tenant_ids = '{self.tenant_id}'")
        assert await owner.execute(statement, *arguments) == "UPDATE 1"
        await owner.execute("COMMIT")
        await owner.close()


@pytest.fixture
async def cart(shared: Places) -> AsyncIterator[Shop]:
    place = shared("cart")
    async with edge(place) as (client, shell):
        yield Shop(place, client, shell, await onboard(shell))


@pytest.fixture
async def checkout(shared: Places) -> AsyncIterator[Shop]:
    place = shared("checkout")
    async with edge(place) as (client, shell):
        yield Shop(place, client, shell, await onboard(shell))


@pytest.mark.parametrize("sku", SKUS)
async def test_a_sku_of_any_script_is_sold_under_its_percent_encoded_path(cart: Shop, checkout: Shop, sku: str) -> None:
    await sell(cart.shell, cart.tenant_id, sku, 250)
    path, at = quote(sku, safe=""), await cart.new_cart()
    put = await cart.ask("PUT", f"{at}/lines/{path}", json={"quantity": 2})
    assert (put.status_code, put.json()["line"]["sku"], put.headers["location"]) == (201, sku, f"{at}/lines/{path}")
    assert (await cart.ask("POST", f"{at}/lines", headers={"Idempotency-Key": "k"}, json={"sku": sku, "quantity": 1})).is_success
    product = await cart.ask("GET", f"/v1/products/{path}")
    assert (product.status_code, product.json()["sku"]) == (200, sku)
    assert [line["quantity"] for line in (await cart.ask("GET", at)).json()["lines"]] == [3]
    assert (await cart.ask("DELETE", f"{at}/lines/{path}")).status_code == 204
    await count(checkout.shell, checkout.tenant_id, sku, 5)
    stock = await checkout.ask("GET", f"/v1/stock/{path}")
    assert (stock.status_code, stock.json()["sku"], stock.json()["on_hand"]) == (200, sku, 5)
    policy = await checkout.ask("PUT", f"/v1/stock/{path}", json={"policy": "backorder"})
    assert (policy.status_code, policy.json()["sku"]) == (200, sku)


@pytest.mark.parametrize("sku", NO_SKUS)
async def test_what_is_no_sku_is_absent_as_a_path_and_refused_as_a_member(cart: Shop, sku: str) -> None:
    at, path = await cart.new_cart(), quote(sku, safe="")
    for method, where, body in (("PUT", f"{at}/lines/{path}", {"quantity": 1}), ("GET", f"/v1/products/{path}", None)):
        assert (await cart.ask(method, where, json=body)).status_code == 404
    refused = await cart.ask("POST", f"{at}/lines", headers={"Idempotency-Key": "k"}, json={"sku": sku, "quantity": 1})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/sku")
    listed = await cart.ask("PUT", f"{at}/lines", json={"lines": [{"sku": sku, "quantity": 1}]})
    assert listed.json()["errors"][0]["pointer"] == "/lines/0/sku"


async def test_a_slash_that_is_encoded_never_leads_to_another_route(cart: Shop, checkout: Shop) -> None:
    at = await cart.new_cart()
    for path in (f"{at}%2Flines", f"/v1/carts%2F{at.rpartition('/')[2]}", "/v1%2Fproducts", "%2Flivez", "/v1/products%2Ftea"):
        refused = await cart.client.get(path, headers=cart.staff.authorization)
        assert refused.status_code == 404, path
        assert refused.headers["content-type"] == "application/problem+json"
    assert (await cart.ask("PATCH", "/v1/products/a%2Fb")).status_code == 405
    rate = {"name": "VAT", "rate": "20"}
    for path, category in (("a%2Fb", "a/b"), ("a/b", "a/b"), ("K%C3%A4se", "Käse"), ("%2A", "*")):
        put = await checkout.ask("PUT", f"/v1/tax-rates/GB/{path}", json=rate)
        assert (put.status_code, put.json().get("category")) == (200, category)


LINE = FrozenLine(sku="tea", name="Tea", category="things", quantity=1, unit_minor=100, total_minor=100)
UNKEEPABLE = [b"\\u0000", b"\\ud800", b"\\udfff x", b"\\ud800\\ud800"]


@pytest.mark.parametrize("text", UNKEEPABLE)
async def test_text_that_no_column_keeps_is_refused_wherever_it_stands_with_its_pointer(checkout: Shop, text: bytes) -> None:
    good = b'{"cart_id":"%b","payment":{"method":"pm_card_visa"},"email":"a@b.c"' % str(uuid4()).encode()
    bodies = {
        "/email": b'{"email":"a@b.c%b"}' % text,
        "/shipping_method": good + b',"shipping_method":"x%b"}' % text,
        "/payment/method": good.replace(b"visa", text) + b"}",
        "/billing_address/line1": good + b',"billing_address":{"line1":"%b","country":"GB"}}' % text,
        "/metadata/a~1b/0/1": good + b',"metadata":{"a/b":[["x","%b"]]}}' % text,
    }
    for pointer, body in bodies.items():
        headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
        refused = await checkout.ask("POST", "/v1/checkouts", headers=headers, content=body)
        assert refused.status_code == 422, body
        assert [each["pointer"] for each in problem(refused)["errors"]] == [pointer]
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    named = await checkout.ask("POST", "/v1/checkouts", headers=headers, content=good + b',"k%b":1}' % text)
    [error] = problem(named)["errors"]
    assert error["pointer"].startswith("/k\\u")
    absent = await checkout.ask(
        "POST", f"/v1/orders/{uuid4()}/notes", headers={"Content-Type": "application/json"}, content=b'{"body":"%b"}' % text
    )
    assert absent.status_code == 404, "the order goes before its note"


@pytest.mark.parametrize("text", ["%00", "%ED%A0%80", "a%FFb", "%80"])
async def test_text_that_is_none_is_422_in_a_query_and_404_in_a_path(cart: Shop, text: str) -> None:
    for query, pointer in ((f"cursor={text}", "/cursor"), (f"unknown={text}", "/unknown")):
        refused = await cart.ask("GET", f"/v1/products?limit=5&{query}")
        assert (refused.status_code, problem(refused)["errors"][0]["pointer"]) == (422, pointer)
    for path in (f"/v1/products/{text}", f"/v1/carts/{text}", f"/v1/{text}", f"/v1/products/a%2F{text}/"):
        assert problem(await cart.ask("GET", path))["code"] == "not-found"
        assert (await cart.ask("DELETE", path)).status_code in {404, 405}


KEPT_AS_HASHES = {"4242424242424242", "whsec_x"}


@pytest.mark.parametrize("key", [*sorted(KEPT_AS_HASHES), "356938035643809", "0000000000000000", "order-79927398713", "~!@#"])
async def test_a_key_of_visible_ascii_is_a_key_and_replays_and_no_card_number_is_kept(cart: Shop, key: str) -> None:
    await sell(cart.shell, cart.tenant_id, "tea", 250)
    at, body = await cart.new_cart(), {"sku": "tea", "quantity": 1}
    first, again, quoted = [
        await cart.ask("POST", f"{at}/lines", headers={"Idempotency-Key": each}, json=body) for each in (key, key, f'"{key}"')
    ]
    assert (first.status_code, "idempotent-replayed" in first.headers) == (200, False)
    assert again.content == quoted.content == first.content
    assert again.headers["idempotent-replayed"] == quoted.headers["idempotent-replayed"] == "true"
    owner = await asyncpg.connect(cart.place.url("app"))
    await owner.execute(f"BEGIN; SET LOCAL cartwright.tenant_ids = '{cart.tenant_id}'")
    [kept] = [row["key"] for row in await owner.fetch("SELECT key FROM idempotency_key WHERE tenant_id = $1", cart.tenant_id)]
    await owner.close()
    assert (kept == key) == (key not in KEPT_AS_HASHES)


async def test_every_cart_that_is_accepted_can_be_frozen_and_ordered(cart: Shop) -> None:
    long, short = "茶" * 200, "名" * 40
    names = {f"{number:04}-{'長' * 40}": long if number < 1_000 else short for number in range(1_300)}
    shopper = Person(cart.tenant_id)
    at = await cart.new_cart(shopper)
    statement = """INSERT INTO product (tenant_id, sku, version, sequence, name, category, prices, described_sequence,
        withdrawn_sequence) SELECT $1, sku, 1, 0, name, '類', '{"GBP": {"unit_minor": 9000000000, "sequence": 2}}', 1, 0
        FROM unnest($2::text[], $3::text[]) AS t(sku, name)"""
    owner = await asyncpg.connect(cart.place.url("app"))
    await owner.execute(f"BEGIN; SET LOCAL cartwright.tenant_ids = '{cart.tenant_id}'")
    await owner.execute(statement, cart.tenant_id, list(names), list(names.values()))
    await owner.execute("COMMIT")
    await owner.close()

    async def put(count: int) -> httpx.Response:
        lines = [{"sku": sku, "quantity": 100} for sku in list(names)[:count]]
        return await cart.ask("PUT", f"{at}/lines", shopper, json={"lines": lines})

    refused = await put(1_300)
    assert (refused.status_code, problem(refused)["code"]) == (422, "cart-too-large")
    least, most = 1, 1_300
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if (await put(middle)).is_success else (least, middle)
    assert (await put(least)).status_code == 200
    request = CheckoutRequested(checkout_id=uuid4(), cart_id=UUID(at.rpartition("/")[2]), subject_id=shopper.subject)
    await cart.shell.execute(message(request, cart.tenant_id))
    frozen = (await cart.ask("GET", at, shopper)).json()
    assert (frozen["state"], len(frozen["lines"])) == ("frozen", least)
    owner = await asyncpg.connect(cart.place.url("relay"))
    sizes = await owner.fetch("SELECT length(payload) AS size FROM outbox_event WHERE topic = 'cart.v1' ORDER BY id DESC LIMIT 1")
    await owner.close()
    assert 0.5 * MAX_EVENT_BYTES < sizes[0]["size"] < MAX_EVENT_BYTES


BAD_PRICES = [
    '{"GBP": {"unit_minor": 250, "sequence": 2, "valid_until": "2031-01-31T23:59:59"}}',
    '{"GBP": {"unit_minor": 250, "sequence": 2, "valid_from": "yesterday"}}',
    '{"GBP": {"unit_minor": "dear", "sequence": 2}}',
    '{"GBP": {"unit_minor": -1, "sequence": 2}}',
    '{"GBP": {"unit_minor": 1e30, "sequence": 1e30}}',
    '{"GBP": null, "EUR": {"unit_minor": 1, "sequence": 1}}',
    "[]",
    '"free"',
]


@pytest.mark.parametrize("prices", BAD_PRICES)
async def test_a_products_bad_row_is_that_products_failure_and_nobody_elses(cart: Shop, prices: str) -> None:
    for sku in ("bad", "good"):
        await sell(cart.shell, cart.tenant_id, sku, 250)
    shopper = Person(cart.tenant_id)
    before, at = await cart.new_cart(shopper), await cart.new_cart(shopper)
    assert (await cart.ask("PUT", f"{before}/lines/bad", shopper, json={"quantity": 1})).status_code == 201
    await cart.as_owner("UPDATE product SET prices = $2::jsonb WHERE tenant_id = $1 AND sku = 'bad'", cart.tenant_id, prices)
    listed = await cart.ask("GET", "/v1/products")
    assert listed.status_code == 200
    assert [(each["sku"], each.get("unit_minor")) for each in listed.json()["items"]] == [("bad", None), ("good", 250)]
    assert (await cart.ask("GET", "/v1/products/bad")).status_code == 200
    assert (await cart.ask("PUT", f"{at}/lines/good", shopper, json={"quantity": 1})).status_code == 201
    refused = await cart.ask("PUT", f"{at}/lines/bad", shopper, json={"quantity": 1})
    assert (refused.status_code, problem(refused)["code"]) == (422, "product-unavailable")
    requests = [
        CheckoutRequested(checkout_id=uuid4(), cart_id=UUID(each.rpartition("/")[2]), subject_id=shopper.subject)
        for each in (before, at)
    ]
    await cart.shell.execute_many([message(request, cart.tenant_id) for request in requests])
    assert [(await cart.ask("GET", each, shopper)).json()["state"] for each in (before, at)] == ["open", "frozen"]
    again = PriceChanged(sku="bad", currency="GBP", unit_minor=300)
    await cart.shell.execute(message(again, cart.tenant_id, sequence=3))
    assert (await cart.ask("GET", "/v1/products/bad")).json().get("unit_minor") == (None if "1e30" in prices else 300)


async def test_a_list_goes_on_past_a_row_that_nobody_can_read(checkout: Shop) -> None:
    for sku in ("a", "b", "c", "d"):
        await count(checkout.shell, checkout.tenant_id, sku, 5)
    broken = '{"main": {"on_hand": "many"}}'
    for sku in ("b", "d"):
        await checkout.as_owner(
            "UPDATE stock SET levels = $3::jsonb WHERE tenant_id = $1 AND sku = $2", checkout.tenant_id, sku, broken
        )
    seen, cursor = [], ""
    for _ in range(4):
        page = (await checkout.ask("GET", f"/v1/stock?limit=1{cursor}")).json()
        seen.append([each["sku"] for each in page["items"]])
        cursor = f"&cursor={page['next_cursor']}"
    assert (seen, page["next_cursor"]) == ([["a"], [], ["c"], []], None)


async def test_a_cart_whose_row_cannot_be_read_ends_its_checkout_and_no_other(cart: Shop) -> None:
    await sell(cart.shell, cart.tenant_id, "tea", 250)
    shopper = Person(cart.tenant_id)
    bad, good = await cart.new_cart(shopper), await cart.new_cart(shopper)
    for at in (bad, good):
        await cart.ask("PUT", f"{at}/lines/tea", shopper, json={"quantity": 1})
    ids = [UUID(at.rpartition("/")[2]) for at in (bad, good)]
    broken = '[{"sku": "tea"}]'
    await cart.as_owner("UPDATE cart SET lines = $3::jsonb WHERE tenant_id = $1 AND id = $2", cart.tenant_id, ids[0], broken)
    requests = [CheckoutRequested(checkout_id=uuid4(), cart_id=each, subject_id=shopper.subject) for each in ids]
    await cart.shell.execute_many([message(request, cart.tenant_id) for request in requests])
    owner = await asyncpg.connect(cart.place.url("relay"))
    rows = await owner.fetch("SELECT payload FROM outbox_event WHERE tenant_id = $1 ORDER BY id", cart.tenant_id)
    await owner.close()
    told = {event["checkout_id"]: event for event in (orjson.loads(row["payload"]) for row in rows) if "checkout_id" in event}
    assert told[str(requests[0].checkout_id)]["reason"] == "cart-unavailable"
    assert told[str(requests[1].checkout_id)]["total_minor"] == 250


async def test_a_sequence_that_leaps_ends_nothing(cart: Shop, checkout: Shop) -> None:
    await sell(cart.shell, cart.tenant_id, "tea", 250)
    for sequence in (2**53 - 1, 1_000_000_003):
        leap = message(PriceChanged(sku="tea", currency="GBP", unit_minor=1), cart.tenant_id, sequence=sequence)
        with pytest.raises(UnbelievableError, match="sequence-leap: /ce_sequence: tea is at 2"):
            await cart.shell.execute(leap)
    for sequence, unit_minor in ((3, 300), (1_000_000_003, 400), (1_000_000_004, 500)):
        price = PriceChanged(sku="tea", currency="GBP", unit_minor=unit_minor)
        await cart.shell.execute(message(price, cart.tenant_id, sequence=sequence))
        assert (await cart.ask("GET", "/v1/products/tea")).json()["unit_minor"] == unit_minor
    await count(checkout.shell, checkout.tenant_id, "tea", 5)
    for fact in (
        StockCounted(sku="tea", location="main", quantity=1),
        StockAdjusted(sku="tea", location="main", delta=1, reason="x"),
    ):
        with pytest.raises(UnbelievableError, match="sequence-leap"):
            await checkout.shell.execute(message(fact, checkout.tenant_id, sequence=2**53 - 1))
    await count(checkout.shell, checkout.tenant_id, "tea", 7, sequence=2)
    assert (await checkout.ask("GET", "/v1/stock/tea")).json()["on_hand"] == 7


async def test_terms_that_nobody_can_read_end_the_checkouts_that_need_them(checkout: Shop) -> None:
    await count(checkout.shell, checkout.tenant_id, "tea", 5)
    await checkout.ask("PUT", "/v1/tax-rates/FR/things", json={"name": "TVA", "rate": "20"})
    broken = '{"things": {"name": "TVA", "rate": "much"}}'
    await checkout.as_owner(
        "UPDATE tax_table SET rates = $2::jsonb WHERE tenant_id = $1 AND country = 'FR'", checkout.tenant_id, broken
    )
    shopper = Person(checkout.tenant_id)
    address = {"name": "A", "line1": "1 Rue", "city": "Paris", "postal_code": "75001"}
    states = []
    for country in ("FR", "GB"):
        body = {
            "cart_id": str(uuid4()),
            "payment": {"method": "pm_card_visa"},
            "billing_address": {**address, "country": country},
        }
        begun = await checkout.ask("POST", "/v1/checkouts", shopper, headers={"Idempotency-Key": country}, json=body)
        frozen = CartFrozen(
            cart_id=UUID(body["cart_id"]),  # type: ignore[arg-type]  # it is the text above
            checkout_id=UUID(begun.json()["id"]),
            version=1,
            subject_id=shopper.subject,
            currency="GBP",
            lines=(LINE,),
            discounts=(),
            total_minor=100,
        )
        await checkout.shell.execute(message(frozen, checkout.tenant_id))
        states.append((await checkout.ask("GET", f"/v1/checkouts/{begun.json()['id']}", shopper)).json())
    assert [(each["state"], each.get("reason")) for each in states] == [("failed", "cart-unavailable"), ("paying", None)]
