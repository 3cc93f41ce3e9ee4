"""Nobody reaches into another tenant: every operation of every service and of `/ops`, asked for by whoever may not."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
import orjson
import pytest
from starlette.routing import Route
from structlog.testing import capture_logs

from libs.common.auth import CLIENT, PERMISSIONS, PLATFORM_OPERATOR, PLATFORM_PERMISSIONS, ROLES
from libs.common.clock import PLATFORM, new_id
from libs.common.contracts.catalog import ProductPublished
from libs.common.http.operator import OperatorRoute, repair_routes
from libs.common.http.routes import GuardedRoute, Routes, UndeclaredPermissionError, guard
from libs.common.http.seeing import Sight
from libs.common.http.server import OpenToTenantsError, operator_app
from libs.common.messaging.shell import Shell
from libs.common.telemetry.security import REFUSALS, SECURITY
from services import SERVICES
from services.identity.domain.client import client_id_of, digest_of
from services.identity.handlers import CreateClient, Granter, OnboardTenant
from tests.integration.callers import Person, edge, message, onboard, problem
from tests.integration.conftest import Place, Places
from tests.till import requested

CANARY = "canary"
OPERATOR = Person(PLATFORM, role=PLATFORM_OPERATOR)
FOREVER_OPEN = {"/v1/sessions", "/v1/order-lookups", "/v1/webhooks/stripe/{tenant_id}", "/oauth/token"}
FOREVER_OPEN |= {"/.well-known/jwks.json", "/.well-known/oauth-authorization-server"}


@dataclass(frozen=True)
class Operation:
    """One method of one route, and what it is asked with."""

    method: str
    path: str
    route: Any
    headers: Mapping[str, str]

    @property
    def demanded(self) -> set[str]:
        if isinstance(self.route, GuardedRoute):
            return {each for each in (self.route.rule.permission, self.route.rule.instead) if each}
        return {self.route.permission}


@dataclass
class Victim:
    """A service with a tenant that has something in it, and what stands in the paths that name it."""

    place: Place
    client: httpx.AsyncClient
    shell: Shell
    tenant_id: UUID
    shopper: Person
    ids: dict[str, str]

    @property
    def routes(self) -> list[Any]:
        transport: Any = self.client._transport
        return [each for each in transport.app.router.routes if isinstance(each, GuardedRoute | OperatorRoute)]

    def operations(self) -> list[Operation]:
        """Every one. A new parameter of a path without an entry in `ids` is a KeyError, and fails."""
        found = []
        for route in self.routes:
            path = route.path
            for name, convertor in route.param_convertors.items():
                value = quote(self.ids[name], safe="")
                path = path.replace(f"{{{name}:path}}" if "{" + name + ":path}" in path else f"{{{name}}}", value)
                assert convertor
            if isinstance(route, GuardedRoute) and route.rule.permission is None:
                assert route.path in FOREVER_OPEN, f"{route.path} is open to everybody"
                continue
            for method in (route.methods or set()) - {"HEAD"}:
                found.append(Operation(method, path, route, {"Idempotency-Key": uuid4().hex}))
        return found

    async def ask(self, operation: Operation, who: Person | None) -> httpx.Response:
        headers = {**operation.headers, **(who.authorization if who else {})}
        body = {"json": {}} if operation.method in {"POST", "PUT", "PATCH"} else {}
        return await self.client.request(operation.method, operation.path, headers=headers, **body)

    async def rows(self) -> dict[str, Any]:
        """A hash of all that the tenant has, table by table."""
        admin = await self.place.as_admin()
        try:
            tables = await admin.fetch(
                """SELECT c.relname AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
                WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition"""
            )
            hashed = "SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {} t WHERE tenant_id = $1"
            return {row["name"]: await admin.fetchval(hashed.format(row["name"]), self.tenant_id) for row in tables}
        finally:
            await admin.close()

    def gives_nothing_away(self, answer: httpx.Response) -> None:
        told = answer.text.replace(answer.request.url.path, "")
        assert CANARY not in told, told
        assert str(self.tenant_id) not in told, told


async def parked(place: Place, tenant_id: UUID | None, **changes: Any) -> str:
    """A message that was parked; answers its id."""
    offset = uuid4().int % 2**40
    row = {"topic": "catalog.v1", "key": f"{tenant_id}:tea".encode(), "headers": b"[]", "payload": CANARY.encode()}
    row |= {"state": "rejected", "reason": "schema", "type": "product.published", **changes}
    admin = await place.as_admin()
    try:
        await admin.execute(
            """INSERT INTO inbox_parked (consumer, topic, part, off, key, headers, payload, state, reason, detail, tenant_id, type)
            VALUES ($1, $2, 0, $3, $4, $5, $6, $7, $8, $9, $10, $11)""",
            *(place.service, row["topic"], offset, row["key"], row["headers"], row["payload"]),
            *(row["state"], row["reason"], CANARY, tenant_id, row["type"]),
        )
    finally:
        await admin.close()
    return f"{row['topic']}:0:{offset}"


async def _cart(shell: Shell, tenant_id: UUID, shopper: Person, client: httpx.AsyncClient) -> dict[str, str]:
    await shell.execute(message(ProductPublished(sku="tea", name=CANARY, category="things"), tenant_id))
    cart_id = uuid4()
    made = await client.put(f"/v1/carts/{cart_id}", headers=shopper.authorization)
    assert made.status_code == 201
    return {"cart_id": str(cart_id), "sku": "tea"}


async def _checkout(shell: Shell, tenant_id: UUID, shopper: Person, client: httpx.AsyncClient) -> dict[str, str]:
    body = {"cart_id": str(uuid4()), "payment": {"method": "m"}}
    headers = {**shopper.authorization, "Idempotency-Key": "k"}
    checkout = (await client.post("/v1/checkouts", json=body, headers=headers)).json()["id"]
    return {"checkout_id": checkout, "order_id": str(uuid4()), "code": "post", "country": "GB", "category": "tea", "sku": "tea"}


async def _payments(shell: Shell, tenant_id: UUID, shopper: Person, client: httpx.AsyncClient) -> dict[str, str]:
    asked = requested("pm_card_visa")
    await shell.execute(message(asked, tenant_id))
    others = {name: str(uuid4()) for name in ("refund_id", "dispute_id", "reconciliation_id")}
    return {"payment_id": str(asked.payment_id), "tenant_id": str(tenant_id), **others}


async def _identity(shell: Shell, tenant_id: UUID, shopper: Person, client: httpx.AsyncClient) -> dict[str, str]:
    client_id, secret_id = await _client_of(shell, tenant_id, sorted(ROLES[CLIENT]))
    return {"tenant_id": str(tenant_id), "client_id": client_id, "secret_id": str(secret_id)}


SEEDS = {"cart": _cart, "checkout": _checkout, "payments": _payments, "identity": _identity}


async def _tenant(shell: Shell, service: str) -> UUID:
    if service != "identity":
        return await onboard(shell)
    tenant_id = uuid4()
    made = OnboardTenant(slug=f"t-{tenant_id.hex[:12]}", name=CANARY, currency="GBP", country="GB", admin_email="a@shop.test")
    await shell.execute(message(made, tenant_id))
    return tenant_id


async def _client_of(shell: Shell, tenant_id: UUID, scopes: list[str]) -> tuple[str, UUID]:
    subject_id, secret_id = new_id(), new_id()
    client_id = client_id_of(tenant_id, subject_id)
    granter = Granter(tenant_id=PLATFORM, client_id="platform", grantable=ROLES[CLIENT])
    named = {"client_id": client_id, "subject_id": subject_id, "name": CANARY, "scopes": tuple(scopes)}
    secret = {"secret_id": secret_id, "secret_digest": digest_of("s")}
    await shell.execute(message(CreateClient(**named, **secret, granter=granter), tenant_id))
    return client_id, secret_id


@pytest.fixture(params=SERVICES)
async def victim(request: pytest.FixtureRequest, shared: Places) -> AsyncIterator[Victim]:
    place = shared(request.param)
    async with edge(place) as (client, shell):
        tenant_id = await _tenant(shell, request.param)
        shopper = Person(tenant_id)
        ids = await SEEDS[request.param](shell, tenant_id, shopper, client)
        ids |= {"parked_id": await parked(place, tenant_id), "id": await parked(place, None)}
        yield Victim(place, client, shell, tenant_id, shopper, ids)


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
    thief = Person(await _tenant(victim.shell, victim.place.service), role=CLIENT)
    for operation in victim.operations():
        answer = await victim.ask(operation, thief)
        victim.gives_nothing_away(answer)
        assert answer.status_code < 500, operation
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
    assert changed <= {"cart", "idempotency_key"}, "of their own, a new cart"


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
        for tid in (5, [], "x", None):
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


async def test_the_walk_covers_the_services_document(victim: Victim) -> None:
    transport: Any = victim.client._transport
    documented = {(method.upper(), path) for path, methods in transport.app.openapi()["paths"].items() for method in methods}
    walked = {(each.method, each.route.path_format) for each in victim.operations() if isinstance(each.route, GuardedRoute)}
    assert {path for _, path in documented - walked} <= FOREVER_OPEN
    assert walked <= documented


STRANGE = ("x", "0", "a:b:c", "cart.v1:0:99999999999999999999", "cart.v1:99999999999:0", "cart.v1:-1:0", "cart.v1:0:٣", "%00")
STRANGE += ("cart.v1%00:0:0", "outbox:x", "outbox:", "::", "%ff", "a" * 5_000, "cart.v1:0:0%00", "💥", "..%2f..", "'--")


async def test_ids_and_queries_that_can_be_nothing_are_4xx_for_operators_and_never_500(victim: Victim) -> None:
    for value in STRANGE:
        encoded = value if "%" in value else quote(value)
        for method, path in (("GET", ""), ("POST", "/replay"), ("POST", "/discard")):
            body = {"json": {"reason": "r"}} if path == "/discard" else {}
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
        assert answer.status_code == 400, (query, answer.text)
    for body in (b"{", b"[]", b'{"reason":5}', b'{"reason":"\\u0000"}', b'{"reason":""}'):
        headers = {**OPERATOR.authorization, "Content-Type": "application/json"}
        path = f"/ops/parked-messages/{victim.ids['id']}/discard"
        assert (await victim.client.post(path, headers=headers, content=body)).status_code == 400, body
    seen = await victim.client.get("/ops/parked-messages", params={"limit": 200}, headers=OPERATOR.authorization)
    assert {victim.ids["id"], victim.ids["parked_id"]} <= {each["id"] for each in seen.json()["items"]}


def test_a_route_under_ops_that_does_not_turn_tenants_away_keeps_its_service_from_starting() -> None:
    async def answer(_: object) -> httpx.Response:
        raise NotImplementedError

    with pytest.raises(UndeclaredPermissionError, match="platform"):
        Routes().get("/ops/everything")(guard("ops:read")(answer))  # type: ignore[arg-type, type-var] # never called
    with pytest.raises(OpenToTenantsError, match="/ops/everything"):
        operator_app([], Route("/ops/everything", answer))


class Untouchable:
    """Rebuilds nothing: nobody who may not ever gets here."""

    async def rebuild(self, name: str, *, actor: str) -> dict[str, Any]:
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


async def test_a_tenant_sees_its_own_parked_messages_and_repairs_them_once(shared: Places) -> None:
    place = shared("cart")
    async with edge(place) as (client, shell):
        tenant_id, other = await onboard(shell), await onboard(shell)
        headers = [["ce_id", str(uuid4())], ["ce_source", "/catalogue"], ["ce_type", "product.published"]]
        headers += [["ce_tenantid", str(tenant_id)], ["ce_sequence", "1"], ["ce_time", "2026-01-01T00:00:00Z"]]
        payload = orjson.dumps({"sku": "tea", "name": "Tea", "category": "things"})
        waiting = {"state": "parked", "reason": "ValueError", "headers": orjson.dumps(headers), "payload": payload}
        own = await parked(place, tenant_id, **waiting)
        hopeless, foreign = await parked(place, tenant_id), await parked(place, other)
        staff, root = Person(tenant_id, role=CLIENT), "/v1/cart-parked-messages"

        first = (await client.get(root, params={"limit": 1}, headers=staff.authorization)).json()
        rest = await client.get(root, params={"cursor": first["next_cursor"]}, headers=staff.authorization)
        assert {each["id"] for each in [*first["items"], *rest.json()["items"]]} == {own, hopeless}
        filtered = await client.get(root, params={"state": "parked", "reason": "ValueError"}, headers=staff.authorization)
        assert [each["id"] for each in filtered.json()["items"]] == [own]
        assert (await client.get(f"{root}/{own}", headers=staff.authorization)).json()["payload"] == payload.decode()
        for parked_id in (foreign, await parked(place, None), "x"):
            assert (await client.get(f"{root}/{parked_id}", headers=staff.authorization)).status_code == 404

        keyed = {**staff.authorization, "Idempotency-Key": "k"}
        done = await client.post(f"{root}/{own}/replay", headers=keyed)
        assert (done.status_code, done.json()) == (200, {"id": own, "action": "replay", "done": [own]})
        again = await client.post(f"{root}/{own}/replay", headers=keyed)
        assert (again.content, again.headers["idempotent-replayed"]) == (done.content, "true")
        assert (await client.get("/v1/products/tea", headers=staff.authorization)).json()["name"] == "Tea"
        anew = {**staff.authorization, "Idempotency-Key": "k2"}
        assert (await client.post(f"{root}/{own}/replay", headers=anew)).status_code == 409
        assert (await client.post(f"{root}/{hopeless}/replay", headers=anew)).status_code == 409
        given_up = await client.post(f"{root}/{hopeless}/discard", headers=anew, json={"reason": "ours"})
        assert given_up.status_code == 200, given_up.text
        assert (await client.get(root, headers=staff.authorization)).json()["items"] == []


async def test_the_app_reaches_parked_messages_of_the_tenants_it_names_and_the_platform_reaches_all(shared: Places) -> None:
    place = shared("checkout")
    async with edge(place) as (_, shell):
        tenant_id = uuid4()
        own, nobodys = await parked(place, tenant_id), await parked(place, None)
        for named, seen in (([], set()), ([uuid4()], set()), ([tenant_id], {own}), ([PLATFORM], {own, nobodys})):
            async with shell.database.transaction(named) as connection:
                rows = await connection.fetch("SELECT topic, part, off FROM inbox_parked")
            found = {f"{row['topic']}:{row['part']}:{row['off']}" for row in rows}
            assert found & {own, nobodys} == seen


async def test_one_grants_what_one_has_and_nobody_of_a_tenant_what_is_the_platforms(shared: Places) -> None:
    async with edge(shared("identity")) as (client, shell):
        tenant_id = await _tenant(shell, "identity")
        small, _ = await _client_of(shell, tenant_id, ["clients:manage", "carts:read"])
        large, _ = await _client_of(shell, tenant_id, ["orders:refund"])

        async def grant(who: Person, scopes: list[str], **more: str) -> httpx.Response:
            headers = {**who.authorization, "Idempotency-Key": uuid4().hex}
            return await client.post("/v1/clients", json={"name": "n", "scopes": scopes, **more}, headers=headers)

        def small_one(*scope: str) -> Person:
            return Person(tenant_id, role=CLIENT, scope=scope or sorted(PERMISSIONS), claims={"client_id": small})

        refused = [
            await grant(small_one(), ["orders:refund"]),
            await grant(small_one("clients:manage"), ["carts:read"]),
            *[await grant(small_one(), [each]) for each in sorted(PLATFORM_PERMISSIONS)],
            *[await grant(OPERATOR, [each], tenant_id=str(tenant_id)) for each in sorted(PLATFORM_PERMISSIONS)],
        ]
        keyed = {**small_one().authorization, "Idempotency-Key": "k"}
        refused.append(await client.post(f"/v1/clients/{large}/secrets", headers=keyed))
        assert [(each.status_code, problem(each)["code"]) for each in refused] == [(422, "scope-not-grantable")] * len(refused)
        assert (await grant(small_one(), ["carts:read", "clients:manage"])).status_code == 201
        everything = await grant(OPERATOR, sorted(ROLES[CLIENT]), tenant_id=str(tenant_id))
        assert everything.status_code == 201
        assert (await client.delete(f"/v1/clients/{small}", headers=OPERATOR.authorization)).status_code == 204
        assert (await grant(small_one(), ["carts:read"])).status_code == 422, "it is gone, though its token is not"


async def test_a_flood_of_refusals_is_counted_one_by_one_and_written_in_few_lines_without_a_secret(shared: Places) -> None:
    async with edge(shared("cart")) as (client, _):
        SECURITY.flush()
        counted = REFUSALS.labels("token_refused", "malformed")
        before = counted._value.get()
        with capture_logs() as lines:
            for _ in range(500):
                await client.get("/v1/carts", headers={"Authorization": "Bearer stolen.secret.token"})
            stranger = Person(uuid4(), role=CLIENT)
            await client.get("/ops/actions", headers=stranger.authorization)
            SECURITY.flush()
        assert counted._value.get() - before == 500
        refused = [line for line in lines if line["event"] == "security.token_refused"]
        assert (len(refused), sum(line["count"] for line in refused)) == (2, 500)
        assert "stolen" not in repr(lines)
        [denied] = [line for line in lines if line["event"] == "security.permission_refused"]
        assert (denied["reason"], denied["tenant_id"], denied["route"]) == (
            "platform-only",
            str(stranger.tenant_id),
            "/ops/actions",
        )
        assert (denied["client_id"], denied["subject"]) == ("test", str(stranger.subject))
