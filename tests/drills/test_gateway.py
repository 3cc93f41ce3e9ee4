"""The whole stack behind its gateway: what customers reach, and what becomes of them when it dies."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from deploy.cli.settlement import settled
from deploy.cli.tenants import operator
from deploy.gateway.declared import committed
from deploy.local.gateway import program
from services import SERVICES
from tests.shared.corpora import ID, SMUGGLED, TRICKS
from tests.shared.front_door import said
from tests.shared.market import Market, market_in, standing
from tests.shared.places import Templates

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(program() is None, reason="there is no Envoy for this platform: nothing is proved of the gateway"),
]

BUYERS = 12
PATIENCE_SECONDS = 240


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def market(
    templates: Templates, bootstrap_servers: str, fresh_prefix: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Market]:
    """A market whose dead processes are started again by their supervisor."""
    prefix, home = fresh_prefix("gateway"), tmp_path_factory.mktemp("stack")
    async with standing(templates, bootstrap_servers, prefix, home, supervise=True) as where:
        yield await market_in(where)


def _gateway(market: Market) -> str:
    url = market.stack.description().gateway_url
    assert url
    return url


async def _answered(session: aiohttp.ClientSession, method: str, url: str) -> tuple[int, str]:
    async with session.request(method, URL(url, encoded=True)) as answer:
        told = await answer.json(content_type=None) if answer.content_type.endswith("json") else {}
        return answer.status, str(told.get("code") or told.get("error") or answer.content_type)


async def test_every_declared_route_is_reached_and_answers_as_at_its_service(market: Market) -> None:
    gateway, stack = _gateway(market), market.stack.description()
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        for route in committed():
            path, behind = (_filled(template) for template in (route.path, route.behind or route.path))
            through = await _answered(session, route.method, gateway + path)
            assert through == await _answered(session, route.method, stack.url(route.service) + behind), route
            assert through not in {(404, "not-found"), (405, "method-not-allowed")} or "{" in route.path, route
            other = next(each for each in ("DELETE", "PATCH", "PUT", "POST") if not _is_declared(each, route.path))
            assert await _answered(session, other, gateway + path) in {(405, "method-not-allowed"), (401, "token-missing")}, route


def _filled(template: str) -> str:
    found = "/".join(ID if "_id}" in part else "x" if part.startswith("{") else part for part in template.split("/"))
    return found.replace("{id}", ID)


def _is_declared(method: str, path: str) -> bool:
    return any((each.method, each.path) == (method, path) for each in committed())


async def test_what_operators_are_told_nobody_is_told_at_the_gateway(market: Market) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/ops/parked-messages", "/ops/signing-keys", "/livez", "/readyz", "/startupz", "/metrics", "/openapi.json"):
            assert await _answered(session, "GET", _gateway(market) + path) == (404, "not-found")


@pytest.mark.parametrize("service", SERVICES)
async def test_no_trick_gets_anything_out_of_a_service_that_is_asked_directly(market: Market, service: str) -> None:
    port = URL(market.stack.description().url(service)).port
    assert port
    for path in (each for each in TRICKS if each != "/openapi.json"):  # which each says of itself
        head = f"GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"
        status, answer = await said(port, head.encode())
        assert status in {400, 401, 404, 405, 414}, (path, answer)
    for name in SMUGGLED.keys() - {"a header with an underscore"}:  # which means nothing to a service, and is no other header
        request = SMUGGLED[name]
        status, answer = await said(port, request)
        assert status in {400, 501, 505}, (name, answer)
        assert answer.count(b"HTTP/1.1 ") == 1, (name, answer)


async def test_a_callers_word_about_where_it_comes_from_is_worth_nothing(market: Market) -> None:
    lies = dict.fromkeys(("X-Forwarded-For", "X-Real-Ip", "Forwarded", "X-Envoy-External-Address"), "203.0.113.77")
    tenant, stack = str(market.shop.tenant_id), market.stack.description()
    headers = lies | {"Authorization": f"Bearer {await operator(market.api).token()}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for number, base in enumerate((_gateway(market), stack.url("identity"))):
            body = {"name": f"liar-{number}", "scopes": ["orders:read"], "tenant_id": tenant}
            async with session.post(f"{base}/v1/clients", json=body, headers={"Idempotency-Key": f"liar-{number}"}) as answer:
                assert answer.status == 201, await answer.text()
        async with session.get(f"{_gateway(market)}/v1/audit-entries?tenant_id={tenant}&limit=2") as answer:
            entries = (await answer.json())["items"]
    assert [each["address"] for each in entries] == ["127.0.0.0/24"] * 2


async def test_whoever_waits_and_whoever_follows_is_served_through_it(market: Market) -> None:
    shopper = market.shop.shopper("customer:waiting")
    cart_id = await market.cart(shopper, {"SKU-1": 1})
    checkout = await shopper.check_out(cart_id, key="waiting", method="pm_card_visa", wait_seconds=0)
    headers = {"Authorization": f"Bearer {await shopper.token()}"}
    async with aiohttp.ClientSession(_gateway(market), headers=headers) as session:
        async with session.get(f"/v1/checkouts/{checkout['id']}", headers={"Prefer": "wait=30"}) as answer:
            assert (answer.status, answer.headers["Preference-Applied"]) == (200, "wait=30")
            assert (await answer.json())["state"] == "confirmed"
        async with session.get(f"/v1/checkouts/{checkout['id']}/events") as stream:
            assert stream.content_type == "text/event-stream"
            events = await stream.text()
    assert events.startswith("retry: ")
    assert "event: confirmed" in events


async def test_it_may_die_under_load_and_nothing_is_lost_and_nothing_happens_twice(market: Market) -> None:
    bought: list[dict[str, Any]] = []
    over = asyncio.Event()

    async def buys(name: str) -> None:
        number = 0
        while not over.is_set():
            shopper = market.shop.shopper(f"customer:{name}-{number}")
            cart_id = await market.cart(shopper, {f"SKU-{number % 5}": 1})
            started = await shopper.check_out(cart_id, key=f"{name}-{number}", method="pm_card_visa", wait_seconds=5)
            bought.append(await shopper.outcome(started, patience_seconds=PATIENCE_SECONDS))
            number += 1

    async with asyncio.timeout(PATIENCE_SECONDS):
        async with asyncio.TaskGroup() as group:
            for number in range(BUYERS):
                group.create_task(buys(f"survivor-{number}"))
            for _ in range(2):
                enough = len(bought) + BUYERS
                while len(bought) < enough:
                    await asyncio.sleep(0.02)
                killed = market.stack.pids()["gateway"]
                os.kill(killed, signal.SIGKILL)
                while market.stack.pids().get("gateway") in {None, killed}:
                    await asyncio.sleep(0.02)
            over.set()
    assert Counter(checkout["state"] for checkout in bought) == {"confirmed": len(bought)}
    ids = [checkout["id"] for checkout in bought]
    money = await settled(market.api, market.shop.tenant_id, ids, ids)
    charges = await market.all_charges()
    orders = Counter([order["checkout_id"] async for order in market.shop.orders()])
    assert [(orders[checkout_id], len(charges[checkout_id])) for checkout_id in ids] == [(1, 1)] * len(ids)
    assert {checkout["id"]: [checkout["total_minor"]] for checkout in bought} == {
        each: minor for each, minor in money.captured.items() if each in set(ids)
    }
