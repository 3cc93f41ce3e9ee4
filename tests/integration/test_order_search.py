"""Orders found by their number, by what is in them, by who bought them and by where they stand: each by an index, among many."""

import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from libs.common.database import Connection
from services.checkout import repository
from tests.integration.shop import Shop, shop_at
from tests.shared.callers import Person
from tests.shared.places import Places

MANY = 20_000
BUYER = "Ada@Example.test"
COPIES = """INSERT INTO customer_order SELECT copy.* FROM customer_order o, generate_series(1, {many}) i,
jsonb_populate_record(o, jsonb_build_object(
    'placed_at', o.placed_at + i * interval '1 second',
    'id', gen_random_uuid(), 'checkout_id', gen_random_uuid(), 'number', o.number + i,
    'lines', jsonb_build_array(o.lines -> 0 || jsonb_build_object('sku', 'sku-' || i), o.lines -> 0 || '{{"sku": "popular"}}'),
    'payment_state', CASE WHEN i % 1000 = 0 THEN 'disputed' ELSE 'captured' END,
    'state', CASE WHEN i % 1000 = 1 THEN 'canceled' ELSE 'confirmed' END,
    'reason', CASE WHEN i % 1000 = 1 THEN 'canceled' END
)) copy WHERE o.tenant_id = '{tenant_id}'"""
"""So many more of the one order there is, all bought by the same."""


@pytest.fixture
async def shop(shared: Places) -> AsyncIterator[Shop]:
    async with shop_at(shared("checkout")) as shop:
        yield shop


async def found(shop: Shop, query: str, who: Person | None = None) -> list[int]:
    """The numbers of the orders of a list, page by page."""
    numbers: list[int] = []
    cursor = ""
    while True:
        answer = await shop.ask("GET", f"/v1/orders?limit=2&{query}{cursor}", who or shop.staff)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        numbers += [order["number"] for order in page["items"]]
        if page["next_cursor"] is None:
            return numbers
        cursor = f"&cursor={page['next_cursor']}"


async def test_an_order_is_found_by_number_sku_address_buyer_state_and_time(shop: Shop) -> None:
    for email in (BUYER, "bob@example.test", BUYER.lower(), None):
        request: dict[str, Any] = {} if email is None else {"email": email}
        await shop.ordered(**request)
    off = await shop.ordered(is_captured=False)
    await shop.ask("POST", f"/v1/orders/{off.order_id}/cancel", shop.staff)
    last, *_, first = everything = await found(shop, "")
    assert len(everything) == 5
    assert await found(shop, f"number={first}") == [first]
    assert await found(shop, "number=999999999") == []
    assert await found(shop, "sku=tea") == everything
    assert await found(shop, "sku=coffee") == []
    assert await found(shop, "email=ADA%40example.test") == [everything[2], first]
    assert await found(shop, "email=ada%40example.test&sku=tea&payment_state=captured") == [everything[2], first]
    assert await found(shop, "state=canceled") == [last]
    assert await found(shop, "payment_state=captured") == everything[1:]
    assert await found(shop, f"subject_id={uuid4()}") == []
    placed_at = (await shop.ask("GET", f"/v1/orders?number={first}", shop.staff)).json()["items"][0]["placed_at"]
    assert await found(shop, f"placed_after={placed_at}") == everything[:-1]
    assert await found(shop, f"placed_before={placed_at}") == []
    assert await found(shop, "email=ada%40example.test", Person(shop.tenant_id)) == [], "a stranger"
    for query in ("number=0", "email=nobody", "state=lost", "payment_state=gone"):
        assert (await shop.ask("GET", f"/v1/orders?{query}", shop.staff)).status_code == 422, query


async def test_no_filter_reads_all_of_a_tenants_orders(shared: Places) -> None:
    """The database counts what a page of each makes it look at, among so many of one tenant's."""
    place = shared("checkout")
    async with shop_at(place) as shop:
        await shop.ordered(email=BUYER)
        [number] = await found(shop, "")
        order = (await shop.ask("GET", f"/v1/orders?number={number}", shop.staff)).json()["items"][0]
        middle = datetime.fromisoformat(order["placed_at"]) + timedelta(seconds=MANY // 2)
        admin = await place.as_admin()
        try:
            await admin.execute(COPIES.format(many=MANY, tenant_id=shop.tenant_id), timeout=120)
            await admin.execute("ANALYZE customer_order, order_term", timeout=120)
        finally:
            await admin.close()
        orders = repository.orders
        searches: dict[str, dict[str, Any]] = {
            "number": {"number": number + MANY // 2},
            "sku": {orders.HAS_SKU: f"sku-{MANY // 2}"},
            "sku of many": {orders.HAS_SKU: "popular"},
            "email": {orders.HAS_EMAIL: BUYER.lower()},
            "payment state": {"payment_state": "disputed"},
            "state": {"state": "canceled"},
            "buyer": {"subject_id": uuid4()},
            "some minutes": {"placed_at >": middle, "placed_at <": middle + timedelta(seconds=150)},
        }
        async with shop.worker.database.transaction([shop.tenant_id]) as connection:
            looked_at = {name: await _looked_at(connection, shop.tenant_id, where) for name, where in searches.items()}
    assert {name: rows for name, rows in looked_at.items() if rows > 400} == {}


async def _looked_at(connection: Connection, tenant_id: UUID, where: dict[str, Any]) -> int:
    asked: list[tuple[str, tuple[Any, ...]]] = []

    class Recording:
        async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
            asked.append((statement, arguments))
            return []

    recording: Any = Recording()
    await repository.ORDERS.judged_page(
        recording, tenant_id, after=None, limit=51, by=["number"], newest_first=True, where={**where, "subject_id": None}
    )
    [(statement, arguments)] = asked
    plan = orjson.loads(await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *arguments))
    return sum(_rows(plan[0]["Plan"]))


def _rows(node: dict[str, Any]) -> list[int]:
    assert not re.match("Seq Scan", node["Node Type"]), node
    thrown = node.get("Rows Removed by Filter", 0) * node["Actual Loops"]
    mine = (node["Actual Rows"] * node["Actual Loops"] if "Relation Name" in node else 0) + thrown
    return [round(mine), *(rows for child in node.get("Plans", ()) for rows in _rows(child))]
