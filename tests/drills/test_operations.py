"""What operators see and repair, through the operator surface alone."""

import json
import re
from collections.abc import Awaitable
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import pytest
from starlette.routing import Route

from deploy.cli.api import RefusedError
from deploy.cli.publisher import Fact, Record, publishing
from deploy.cli.tenants import operator
from deploy.composition import parts_of
from deploy.local.databases import database_url
from libs.common.http.operator import repair_routes
from libs.common.processes.api import api_app
from services import SERVICES
from tests.shared.limits import limit_topic
from tests.shared.market import Market
from tests.shared.verbs import buy, cartwright

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.long(
        "verbs against a whole deployment, one after the other; what they do is in tests/faults and tests/integration"
    ),
]


def _stock(market: Market, sku: str, sequence: int, **content: Any) -> Fact:
    kind = "stock.counted" if "quantity" in content else "stock.adjusted"
    facts = {"location": "shop", **content} if "quantity" in content else {"location": "shop", "reason": "test", **content}
    return Fact("inventory.v1", kind, "/test/inventory", market.shop.tenant_id, sku, sequence, facts)


async def _publish(market: Market, *facts: Fact | Record) -> None:
    async with publishing(market.api.stack) as publisher:
        await publisher.publish(fact.record() if isinstance(fact, Fact) else fact for fact in facts)


async def _parked(market: Market, service: str, **filters: str) -> list[dict[str, Any]]:
    token = await operator(market.api).token()
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    found = (await market.api.call(service, "GET", f"/ops/parked-messages?{query}", token=token)).body
    items: list[dict[str, Any]] = found["items"]
    return items


def _operated(service: str) -> list[tuple[str, str]]:
    """Every method and path that is for operators, with something in the place of its parameters."""
    app = api_app(service, parts_of(service).routes)
    routes = [*app.operators.routes, *repair_routes(None, None)]  # type: ignore[arg-type]  # asked for their paths alone
    return [
        (method, re.sub(r"\{[^}]*\}", str(uuid4()), route.path))
        for route in routes
        if isinstance(route, Route) and route.path != app.openapi_url
        for method in route.methods or ()
    ]


@pytest.mark.parametrize("service", SERVICES)
async def test_what_is_for_operators_is_not_there_on_the_public_port_whoever_asks(market: Market, service: str) -> None:
    address = market.api.stack.services[service]
    headers = {"Authorization": f"Bearer {await operator(market.api).token()}"}
    operated = _operated(service)
    assert {path for _, path in operated} >= {"/livez", "/startupz", "/readyz", "/metrics", "/ops/parked-messages"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for method, path in [*operated, ("GET", "/asyncapi.json"), ("GET", "/ops"), ("GET", "/ops/"), ("GET", "//ops/actions")]:
            async with session.request(method, f"{address.url}{path}") as refused:
                assert refused.status == 404, (method, path)
                assert refused.headers["Content-Type"] == "application/problem+json"
                assert method == "HEAD" or (await refused.json(content_type=None))["code"] == "not-found"
        for method, path in operated:
            async with session.request(method, f"{address.ops[0]}{path}") as answer:
                told = await answer.text()
                assert answer.status not in (401, 403, 405, 500), (method, path, told)
                assert '"code":"not-found"' not in told, (method, path)
        for path in ("/livez", "/startupz", "/readyz", "/metrics", "/openapi.json", "/ops/parked-messages", "/ops/actions"):
            async with session.get(f"{address.ops[0]}{path}") as answer:
                assert answer.status == 200, path
        async with session.get(f"{address.ops[0]}/v1/anything") as answer:
            assert answer.status == 404


async def test_a_delta_that_came_too_early_waits_and_is_applied_in_order_when_the_missing_one_arrives(market: Market) -> None:
    await _publish(market, _stock(market, "GAPPY", 1, quantity=10), _stock(market, "GAPPY", 3, delta=-2))

    async def waits() -> bool:
        return [each["reason"] for each in await _parked(market, "checkout", type="stock.adjusted", state="parked")] == ["gap"]

    await market.until(waits)
    assert (await market.level("GAPPY"))["on_hand"] == 10
    await _publish(market, _stock(market, "GAPPY", 2, delta=5), _stock(market, "GAPPY", 2, delta=5))

    async def healed() -> bool:
        return bool((await market.level("GAPPY"))["on_hand"] == 13)

    await market.until(healed)
    assert await _parked(market, "checkout", type="stock.adjusted") == []
    replayed = await _parked(market, "checkout", type="stock.adjusted", state="replayed")
    assert [each["offset"] for each in replayed]


async def test_a_count_closes_a_gap_for_it_knows_better(market: Market) -> None:
    await _publish(market, _stock(market, "COUNTED", 1, quantity=10), _stock(market, "COUNTED", 4, delta=7))

    async def waits() -> bool:
        return len(await _parked(market, "checkout", reason="gap")) == 1

    await market.until(waits)
    await _publish(market, _stock(market, "COUNTED", 9, quantity=3))

    async def counted() -> bool:
        return bool((await market.level("COUNTED"))["on_hand"] == 3 and not await _parked(market, "checkout", reason="gap"))

    await market.until(counted)


async def test_what_no_publisher_should_send_is_listed_with_its_reason(market: Market) -> None:
    good = _stock(market, "FORGED", 1, quantity=1).record()
    stranger = f"{uuid4()}:FORGED".encode()
    await _publish(
        market, Record(good.topic, stranger, good.value, good.headers), Record(good.topic, good.key, b"{", good.headers)
    )

    async def listed() -> bool:
        reasons = {each["reason"] for each in await _parked(market, "checkout", state="rejected")}
        return reasons >= {"tenant-mismatch", "schema"}

    await market.until(listed)
    [mismatch] = await _parked(market, "checkout", reason="tenant-mismatch")
    token = await operator(market.api).token()
    shown = (await market.api.call("checkout", "GET", f"/ops/parked-messages/{mismatch['id']}", token=token)).body
    assert json.loads(shown["payload"])["sku"] == "FORGED"


async def test_repairs_need_the_operators_permission_and_a_reason(market: Market) -> None:
    shopkeeper = await market.shop._client.token()
    with pytest.raises(RefusedError) as refused:
        await market.api.call("checkout", "GET", "/ops/parked-messages", token=shopkeeper)
    assert refused.value.status == 403
    token = await operator(market.api).token()
    [mismatch] = await _parked(market, "checkout", reason="tenant-mismatch")
    path = f"/ops/parked-messages/{mismatch['id']}/discard"
    with pytest.raises(RefusedError) as refused:
        await market.api.call("checkout", "POST", path, token=token, body={"reason": " "})
    assert (refused.value.status, refused.value.code) == (400, "reason-missing")
    await market.api.call("checkout", "POST", path, token=token, body={"reason": "forged in a test"})
    actions = (await market.api.call("checkout", "GET", "/ops/actions", token=token)).body["items"]
    assert (actions[0]["action"], actions[0]["reason"], actions[0]["actor"]) == ("parked.discard", "forged in a test", "platform")


async def test_what_has_one_cause_is_discarded_together_and_nothing_else_is(market: Market) -> None:
    good = [_stock(market, f"JUNK-{number}", 1, quantity=1).record() for number in range(5)]
    await _publish(market, *(Record(each.topic, each.key, b"[]", each.headers) for each in good))
    await _publish(market, _stock(market, "KEPT", 1, quantity=1), _stock(market, "KEPT", 3, delta=1))

    async def listed() -> bool:
        found = await _parked(market, "checkout", state="rejected", reason="schema")
        return len(found) >= len(good) and len(await _parked(market, "checkout", state="parked", reason="gap")) == 1

    await market.until(listed)
    decided = await cartwright(
        *(market, "parked", "discard", "--all", "--because", "schema", "--service", "checkout", "--reason", "junk", "--json")
    )
    assert (decided.told["discard"] >= len(good), decided.told["failed"]) == (True, [])
    assert await _parked(market, "checkout", state="rejected", reason="schema") == []
    again = await cartwright(market, "parked", "replay", "--all", "--because", "gap", "--service", "checkout", "--json")
    assert (again.code, len(again.told["failed"])) == (1, 1), "what is missing is missing yet"


async def test_what_the_broker_refused_is_replayed_together_and_what_waited_for_it_goes_on(
    market: Market, bootstrap_servers: str
) -> None:
    topic = f"{market.stack.description().topic_prefix}cart.v1"
    shoppers = [market.shop.shopper(f"customer:refused-{number}") for number in range(3)]
    carts = [await market.cart(shopper, {"SKU-1": 1}) for shopper in shoppers]
    frozen = "--service", "cart", "--type", "cart.frozen", "--json"

    async def listed(state: str) -> int:
        return len((await cartwright(market, "parked", "list", "--state", state, *frozen)).told["items"])

    await limit_topic(topic, 150, bootstrap_servers=bootstrap_servers)
    begun = [
        await shopper.check_out(cart_id, key=f"refused-{cart_id}", method="pm_card_visa", wait_seconds=0)
        for shopper, cart_id in zip(shoppers, carts, strict=True)
    ]
    await market.until(lambda: _is(listed("parked"), len(carts)))
    assert await listed("rejected") == 0, "each is in one state"
    await limit_topic(topic, 1_048_588, bootstrap_servers=bootstrap_servers)
    replayed = await cartwright(market, "parked", "replay", "--all", *frozen)
    assert (replayed.code, replayed.told) == (0, {"replay": len(carts), "failed": []})
    for shopper, checkout in zip(shoppers, begun, strict=True):
        assert (await shopper.outcome(checkout, patience_seconds=120))["state"] == "confirmed"


async def _is(asked: Awaitable[int], expected: int) -> bool:
    return await asked == expected


async def _clients(market: Market) -> list[str]:
    """Those of the tenant."""
    token, of = await operator(market.api).token(), {"tenant_id": str(market.shop.tenant_id)}
    return [each["client_id"] async for each in market.api.everything("identity", "/v1/clients", token, of)]


async def test_operators_verbs_reach_a_deployment_by_its_addresses_and_start_none_where_there_is_none(
    market: Market, tmp_path: Path
) -> None:
    whole = market.api.stack.as_json()
    services = {name: {"url": each["url"], "ops": each["ops"]} for name, each in whole["services"].items()}
    description = tmp_path / "deployment.json"
    told = {name: whole[name] for name in ("platform_client", "kafka", "stripe")}
    description.write_text(json.dumps({"services": services, **told}))
    elsewhere = {"CARTWRIGHT_HOME": str(tmp_path / "empty")}
    prefix = market.stack.description().topic_prefix
    there = elsewhere | {"CARTWRIGHT_DEPLOYMENT": str(description), "CARTWRIGHT_TOPIC_PREFIX": prefix}
    here = await cartwright(market, "parked", "list", "--json")
    assert here.told["items"]
    for verb in ("parked list", "sources list", "positions list", "payments unknown list", "tenants list"):

        async def tells_the_same(verb: str = verb) -> bool:
            found = await cartwright(market, *verb.split(), "--json", **there)
            assert found.code == 0, verb
            listed: bool = found.told["items"] == (await cartwright(market, *verb.split(), "--json")).told["items"]
            return listed  # positions go on between the two for as long as something is under way

        await market.until(tells_the_same)
    _, bought = await buy(market, "looked-at", {"SKU-3": 1})
    before = await _clients(market)
    story = await cartwright(market, "timeline", bought["order_id"], "--json", **there)
    assert (story.code, story.told["order_id"]) == (0, bought["order_id"])
    books = await cartwright(market, "invariants", "--json", "--patience", "0", **there)
    assert "operations" in {each["tenant"] for each in books.told["tenants"]}
    assert await _clients(market) == before, "nobody has to be made a client to be looked at"
    for verb in ("parked list", "invariants", "timeline 1", "reconcile", "payments unknown list"):
        assert (await cartwright(market, *verb.split(), **elsewhere)).code == 3, verb
        assert not (tmp_path / "empty" / "postgres").exists()


async def test_a_rebuilt_projection_equals_the_old_one_mends_a_broken_one_and_repeats_no_effect(
    market: Market, admin_url: str
) -> None:
    token = await operator(market.api).token()
    worker = market.api.stack.services["cart"].ops[-1]

    async def rebuild() -> dict[str, Any]:
        url = f"{worker}/ops/projections/products/rebuild"
        outcome: dict[str, Any] = (await market.api.ask(url, "POST", token=token, seconds=60)).body
        return outcome

    first = await rebuild()
    assert first["rows"] >= 5
    assert first["hash_before"] == first["hash_after"]
    owner = await asyncpg.connect(database_url(admin_url, "cart", "owner", market.stack._prefixes[0]))
    await owner.execute("UPDATE product SET name = 'broken' WHERE sku = 'SKU-1'")
    published = await owner.fetchval("SELECT last_value FROM outbox_event_id_seq")
    assert (await rebuild())["changed"]
    assert (await rebuild())["hash_after"] == first["hash_after"]
    assert await owner.fetchval("SELECT last_value FROM outbox_event_id_seq") == published
    await owner.close()
