"""Nobody reaches into another tenant: every operation of every service and of `/ops`, asked for by whoever may not."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
from starlette.routing import Route

from libs.common.auth import CLIENT, PERMISSIONS, PLATFORM_OPERATOR, ROLES
from libs.common.clock import PLATFORM
from libs.common.http.operator import repair_routes
from libs.common.http.routes import Facing, GuardedRoute, Routes, UndeclaredPermissionError, guard
from libs.common.http.seeing import Sight
from libs.common.http.server import OpenToTenantsError, operator_app
from libs.common.origin import Origin
from services import SERVICES
from tests.integration.victims import FOREVER_OPEN, NEVER_SET, SEEDS, Victim
from tests.shared.callers import Person, edge, problem
from tests.shared.places import Places
from tests.shared.victims import parked, tenant_of

OPERATOR = Person(PLATFORM, role=PLATFORM_OPERATOR)


@pytest.fixture(params=SERVICES)
async def victim(request: pytest.FixtureRequest, shared: Places) -> AsyncIterator[Victim]:
    place = shared(request.param)
    async with edge(place) as (client, shell), AsyncExitStack() as leaves:
        tenant_id = await tenant_of(shell, request.param)
        victim = Victim(place, client, shell, tenant_id, Person(tenant_id), {}, leaves)
        victim.ids |= await SEEDS[request.param](victim)
        victim.ids |= {"parked_id": await parked(place, tenant_id), "id": await parked(place, None)}
        yield victim


async def test_without_a_token_every_operation_is_401_and_without_its_permission_403_whatever_else_one_may(
    victim: Victim,
) -> None:
    before = await victim.rows()
    for operation in victim.operations():
        answer = await victim.ask(operation, None)
        assert answer.status_code == 401, operation
        others = PERMISSIONS - operation.demanded
        lesser = [others, *({each} for each in sorted(others))]
        for scope in lesser:
            answer = await victim.ask(operation, Person(victim.tenant_id, role=CLIENT, scope=scope))
            assert (answer.status_code, problem(answer)["status"]) == (403, 403), (operation, scope)
            victim.gives_nothing_away(answer)
    assert await victim.rows() == before


async def test_another_tenants_client_with_every_permission_finds_nothing_and_changes_nothing(victim: Victim) -> None:
    before = await victim.rows()
    thief = Person(await tenant_of(victim.shell, victim.place.service), role=CLIENT)
    for operation in victim.operations():
        answer = await victim.ask(operation, thief)
        victim.gives_nothing_away(answer)
        assert answer.status_code < 500 or operation.path in NEVER_SET, operation
        if operation.route.platform_only:
            assert (answer.status_code, problem(answer)["code"]) == (403, "platform-only"), operation
        elif (operation.route.rule.sees is not None and isinstance(operation.route.rule.sees, Sight)) or {
            "client_id",
            "tenant_id",
            "parked_id",
        } & set(operation.route.param_convertors):
            assert answer.status_code == 404, operation
    assert await victim.rows() == before


async def test_another_shopper_of_the_same_tenant_sees_and_changes_nothing_of_a_shoppers(victim: Victim) -> None:
    before = await victim.rows()
    other = Person(victim.tenant_id)
    for operation in victim.operations():
        answer = await victim.ask(operation, other)
        permitted = operation.demanded & ROLES[other.role] and not operation.route.platform_only
        assert answer.status_code == 403 if not permitted else answer.status_code < 500, operation
        if permitted and {"cart_id", "checkout_id", "order_id", "payment_id"} & set(operation.route.param_convertors):
            assert answer.status_code in {404, 409 if operation.method == "PUT" else 404}, operation
    changed = {name for name, rows in (await victim.rows()).items() if rows != before[name]}
    own = {"cart", "checkout", "cart_claim", "timer", "outbox_event", "idempotency_key", "product_drop", "drop_place"}
    assert changed <= own, "of their own, a new cart, a checkout of it, and a place at the end of a queue"


NO_TENANTS: tuple[Any, ...] = (5, [], "x", None)
FORGED: Mapping[str, dict[str, Any]] = {
    "a tenant's token with the operators' scope and role": {"roles": [CLIENT, PLATFORM_OPERATOR]},
    "a tenant's token with the operators' role alone": {"roles": [PLATFORM_OPERATOR]},
}


async def test_a_token_of_a_believed_key_that_mixes_a_tenant_with_operators_scopes_opens_no_operators_route(
    victim: Victim,
) -> None:
    before = await victim.rows()
    closed = [each for each in victim.operations() if each.route.platform_only]
    assert closed
    everything = sorted(PERMISSIONS)
    for operation in closed:
        for what, claims in FORGED.items():
            for tenant_id in (victim.tenant_id, uuid4()):
                answer = await victim.ask(operation, Person(tenant_id, role=CLIENT, scope=everything, claims=claims))
                assert (answer.status_code, problem(answer)["code"]) == (403, "platform-only"), (what, operation)
        nobodys = Person(PLATFORM, role=CLIENT, scope=everything)
        assert (await victim.ask(operation, nobodys)).status_code == 403, operation
        nil = Person(uuid4(), role=PLATFORM_OPERATOR, scope=everything, claims={"tid": str(PLATFORM)})
        assert (await victim.ask(operation, nil)).status_code == 401, operation
        for tid in NO_TENANTS:
            wrong = Person(uuid4(), role=PLATFORM_OPERATOR, scope=everything, claims={"tid": tid})
            assert (await victim.ask(operation, wrong)).status_code == 401, (tid, operation)
    assert await victim.rows() == before


async def test_a_platform_operator_is_refused_where_tenants_are_served(victim: Victim) -> None:
    before = await victim.rows()
    for operation in victim.operations():
        if not operation.demanded & ROLES[PLATFORM_OPERATOR]:
            answer = await victim.ask(operation, OPERATOR)
            assert answer.status_code == 403, operation
            victim.gives_nothing_away(answer)
    assert await victim.rows() == before


async def test_the_walk_asks_for_what_is_there_with_what_its_owner_would_be_believed_with(victim: Victim) -> None:
    owner = Person(victim.tenant_id, role=CLIENT)
    readers = (OPERATOR, owner, victim.shopper)
    for operation in victim.operations():
        answers = [await victim.ask(operation, who) for who in readers]
        told, statuses = [each.text for each in answers], {each.status_code for each in answers}
        if operation.method == "GET":
            assert statuses & {200, 204} or operation.path in NEVER_SET, (operation, told)
        else:
            assert statuses - {400, 403, 415, 422}, f"{operation}: {told}"


async def test_the_walk_covers_the_services_document(victim: Victim) -> None:
    transport: Any = victim.client._transport
    documented = {(method.upper(), path) for path, methods in transport.app.openapi()["paths"].items() for method in methods}
    walked = {(each.method, each.route.path_format) for each in victim.operations() if isinstance(each.route, GuardedRoute)}
    assert {path for _, path in documented - walked} <= FOREVER_OPEN
    assert walked <= documented


STRANGE: tuple[str, ...] = (
    *("x", "0", "a:b:c", "::", "cart.v1:0:99999999999999999999", "cart.v1:99999999999:0", "cart.v1:-1:0", "cart.v1:0:\u0663"),
    *("%00", "cart.v1%00:0:0", "cart.v1:0:0%00", "outbox:x", "outbox:", "%ff", "a" * 5_000, "..%2f..", "'--"),
)


async def test_ids_and_queries_that_can_be_nothing_are_4xx_for_operators_and_never_500(victim: Victim) -> None:
    for value in STRANGE:
        encoded = value if "%" in value else quote(value)
        for method, path in (("GET", ""), ("POST", "/replay"), ("POST", "/discard")):
            body: dict[str, Any] = {"json": {"reason": "r"}} if path == "/discard" else {}
            asked = f"/ops/parked-messages/{encoded}{path}"
            answer = await victim.client.request(method, asked, headers=OPERATOR.authorization, **body)
            assert answer.status_code == 404, (asked, answer.text)
    queries = [
        "cursor=x",
        "cursor=a%3Ab%3Ac",
        "limit=0",
        "limit=" + "9" * 5_000,
        "limit=x",
        "tenant_id=x",
        "state=%00",
        "type=%00",
    ]
    for query in queries:
        answer = await victim.client.get(f"/ops/parked-messages?{query}", headers=OPERATOR.authorization)
        assert answer.status_code in (400, 422), (query, answer.text)
    for content in (b"{", b"[]", b'{"reason":5}', b'{"reason":"\\u0000"}', b'{"reason":""}'):
        headers = {**OPERATOR.authorization, "Content-Type": "application/json"}
        path = f"/ops/parked-messages/{victim.ids['id']}/discard"
        assert (await victim.client.post(path, headers=headers, content=content)).status_code in (400, 422), content
    seen = await victim.client.get("/ops/parked-messages", params={"limit": 200}, headers=OPERATOR.authorization)
    assert {victim.ids["id"], victim.ids["parked_id"]} <= {each["id"] for each in seen.json()["items"]}


def test_a_route_under_ops_that_does_not_turn_tenants_away_keeps_its_service_from_starting() -> None:
    async def answer(_: object) -> httpx.Response:
        raise NotImplementedError

    with pytest.raises(UndeclaredPermissionError, match="platform"):
        Routes(Facing.CUSTOMERS).get("/ops/everything")(guard("ops:read")(answer))  # type: ignore[type-var] # never called
    with pytest.raises(OpenToTenantsError, match="/ops/everything"):
        operator_app([], Route("/ops/everything", answer))


class Untouchable:
    """Rebuilds nothing: nobody who may not ever gets here."""

    async def rebuild(self, name: str, *, actor: Origin) -> dict[str, Any]:
        raise AssertionError((name, actor))


async def test_a_workers_routes_turn_everybody_else_away_too(shared: Places) -> None:
    async with edge(shared("cart")) as (client, _):
        transport: Any = client._transport
        service = transport.app.state.service
        worker = operator_app([], *repair_routes(service.parked, service.verifier, Untouchable()))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(worker), base_url="http://worker.test") as asked:
            for route in worker.routes:
                assert isinstance(route, Route)
                if not route.path.startswith("/ops"):
                    continue
                path = route.path.replace("{id}", "cart.v1:0:0").replace("{name}", "product")
                for method in (route.methods or set()) - {"HEAD"}:
                    assert (await asked.request(method, path)).status_code == 401
                    for who in (
                        Person(uuid4(), role=CLIENT, scope=PERMISSIONS),
                        Person(PLATFORM, role=CLIENT, scope=PERMISSIONS),
                    ):
                        assert (await asked.request(method, path, headers=who.authorization)).status_code == 403
