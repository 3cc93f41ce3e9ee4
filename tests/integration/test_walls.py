"""Nobody reaches into another tenant: every operation of every service and of `/ops`, asked for by whoever may not."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
import pytest
from starlette.routing import Route

from libs.common.auth import CLIENT, PERMISSIONS, PLATFORM_OPERATOR, ROLES
from libs.common.clock import PLATFORM, now
from libs.common.contracts.catalog import PriceChanged, ProductPublished
from libs.common.http.operator import OperatorRoute, repair_routes
from libs.common.http.routes import GuardedRoute, Routes, UndeclaredPermissionError, guard
from libs.common.http.seeing import Sight
from libs.common.http.server import OpenToTenantsError, operator_app
from libs.common.messaging.shell import Shell
from libs.common.sealing import MasterKey, MasterKeys
from libs.common.shared import Shared
from services import SERVICES
from services.checkout.repository import CHECKOUTS
from services.payments.domain.money.dispute import dispute_id
from services.payments.domain.provider.outcome import DisputeStatus
from services.payments.gateway.accounts import Access, Credentials, Gateways
from services.payments.gateway.stripe import Stripe
from services.payments.handlers.disputes import ObserveDispute
from services.payments.handlers.reconciliation import RequestReconciliation
from services.payments.repository.provider.accounts import loading
from tests.shared.callers import Person, count, edge, message, problem
from tests.shared.events import cart_frozen_for, frozen_line, payment_authorized, payment_captured
from tests.shared.paying import AMOUNT, captured, dispute_seen, wanted
from tests.shared.places import Place, Places
from tests.shared.victims import CANARY, client_of, parked, tenant_of

OPERATOR = Person(PLATFORM, role=PLATFORM_OPERATOR)
FOREVER_OPEN = {"/v1/sessions", "/v1/order-lookups", "/v1/webhooks/stripe/{tenant_id}", "/oauth/token"}
NEVER_SET = {"/v1/provider-accounts/stripe"}
"""What the victim has none of: it is begun at the provider, who is nowhere here."""
FOREVER_OPEN |= {"/.well-known/jwks.json", "/.well-known/oauth-authorization-server"}


BODIES: Mapping[str, Mapping[str, Any]] = {
    "PUT /v1/carts/{cart_id}/lines": {"lines": [{"sku": "tea", "quantity": 1}]},
    "PUT /v1/carts/{cart_id}/lines/{sku}": {"quantity": 1},
    "POST /v1/carts/{cart_id}/lines": {"sku": "tea", "quantity": 1},
    "POST /v1/checkouts": {"cart_id": "checkout_id", "payment": {"method": "pm_card_visa"}},
    "POST /v1/orders/{order_id}/refunds": {"amount_minor": 1, "reason": "r"},
    "POST /v1/orders/{order_id}/notes": {"body": "b"},
    "PUT /v1/stock/{sku}": {"policy": "backorder"},
    "PUT /v1/shipping-methods/{code}": {"name": "n", "kind": "weight", "currency": "GBP", "rates": [{"amount_minor": 300}]},
    "PUT /v1/tax-rates/{country}/{category}": {"name": "n", "rate": "20"},
    "POST /v1/payments/{payment_id}/refunds": {"amount_minor": 1, "reason": "r"},
    "POST /v1/payments/{payment_id}/resolve": {"verdict": "read-again", "reason": "r"},
    "POST /ops/payments/{payment_id}/resolve": {"tenant_id": "tenant_id", "verdict": "read-again", "reason": "r"},
    "POST /ops/reconciliations": {"tenant_id": "tenant_id"},
    "PUT /v1/provider-accounts/stripe": {"api_key": "sk_test_0123456789abcdef", "webhook_secrets": ["whsec_0123456789abcdef"]},
    "POST /v1/provider-accounts/stripe/connections/{state}": {"code": "ac_1234567890"},
    "POST /v1/clients": {"name": "n", "scopes": ["carts:read"]},
    "POST /v1/tenants": {"slug": "s-walls", "name": "n", "currency": "GBP", "country": "GB", "admin_email": "a@shop.test"},
    "PATCH /v1/tenants/{tenant_id}": {"name": "n"},
    "POST /ops/parked-messages/{id}/discard": {"reason": "r"},
    **{f"POST /v1/{service}-parked-messages/{{parked_id}}/discard": {"reason": "r"} for service in SERVICES},
}
"""What each is asked with that needs a body. A text that is the name of one of the victim's ids stands for that id."""


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
    leaves: AsyncExitStack

    @property
    def routes(self) -> list[Any]:
        transport: Any = self.client._transport
        return [each for each in transport.app.routes if isinstance(each, GuardedRoute | OperatorRoute)]

    def operations(self) -> list[Operation]:
        """Every one, and last those that make something. A path's new parameter without an entry in `ids` is a KeyError."""
        found: list[Operation] = []
        for route in self.routes:
            path = route.path.replace(":path}", "}")
            for name in route.param_convertors:
                path = path.replace("{" + name + "}", quote(self.ids[name], safe=""))
            if isinstance(route, GuardedRoute) and route.rule.permission is None:
                assert route.path in FOREVER_OPEN, f"{route.path} is open to everybody"
                continue
            methods = (route.methods or set()) - {"HEAD"}
            found += [Operation(method, path, route, {"Idempotency-Key": uuid4().hex}) for method in methods]
        return sorted(found, key=lambda each: ("GET", "DELETE", "POST", "PATCH", "PUT").index(each.method))

    async def ask(self, operation: Operation, who: Person | None) -> httpx.Response:
        headers = {**operation.headers, **(who.authorization if who else {})}
        route = f"{operation.method} {operation.route.path.replace(':path}', '}')}"
        given = {
            name: self.ids.get(value, value) if isinstance(value, str) else value for name, value in BODIES.get(route, {}).items()
        }
        body: dict[str, Any] = {"json": given} if operation.method in {"POST", "PUT", "PATCH"} else {}
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


async def _found(victim: Victim, rows: Any, key: str) -> Any:
    async with victim.shell.database.transaction([victim.tenant_id]) as connection:
        [found] = await rows.load(connection, [(victim.tenant_id, UUID(key))], lock=False)
    return found


async def _cart(victim: Victim) -> dict[str, str]:
    for told in (
        ProductPublished(sku="tea", name=CANARY, category="things"),
        PriceChanged(sku="tea", currency="GBP", unit_minor=1),
    ):
        await victim.shell.execute(message(told, victim.tenant_id))
    cart_id = uuid4()
    made = await victim.client.put(f"/v1/carts/{cart_id}", headers=victim.shopper.authorization)
    assert made.status_code == 201
    return {"cart_id": str(cart_id), "sku": "tea"}


async def _checkout(victim: Victim) -> dict[str, str]:
    await count(victim.shell, victim.tenant_id, "tea", 10)
    body = {"cart_id": str(uuid4()), "payment": {"method": "pm_card_visa"}}
    headers = {**victim.shopper.authorization, "Idempotency-Key": "k"}
    checkout_id = (await victim.client.post("/v1/checkouts", json=body, headers=headers)).json()["id"]
    checkout = await _found(victim, CHECKOUTS, checkout_id)
    await victim.shell.execute(message(cart_frozen_for(checkout, frozen_line("tea", 2, 250, name=CANARY)), victim.tenant_id))
    checkout = await _found(victim, CHECKOUTS, checkout_id)
    for event in (payment_authorized(checkout), payment_captured(checkout)):
        await victim.shell.execute(message(event, victim.tenant_id))
    ids = {"checkout_id": checkout_id, "order_id": str(checkout.order_id)}
    ids |= {"code": "post", "country": "GB", "category": "tea", "sku": "tea"}
    shop = Person(victim.tenant_id, role=CLIENT).authorization
    for path in ("/v1/shipping-methods/{code}", "/v1/tax-rates/{country}/{category}"):
        made = await victim.client.put(path.format(**ids), json={**BODIES[f"PUT {path}"], "name": CANARY}, headers=shop)
        assert made.status_code == 200, made.text
    return ids


async def _payments(victim: Victim) -> dict[str, str]:
    payment_id = await captured(victim.shell, victim.tenant_id)
    refund, run_id = wanted(payment_id, 100), uuid4()
    case = dispute_seen(DisputeStatus.NEEDS_RESPONSE, AMOUNT, 0, 1_500)
    begun, ended, none = now() - timedelta(days=1), now(), timedelta(0)
    compare = RequestReconciliation(reconciliation_id=run_id, window_from=begun, window_to=ended, grace=none, requested_by=CANARY)
    for command in (refund, ObserveDispute(payment_id=payment_id, seen=case), compare):
        await victim.shell.execute(message(command, victim.tenant_id))
    nowhere, keys, ours = Stripe("http://127.0.0.1:9"), MasterKeys(MasterKey(bytes(32))), Credentials("sk_test_walls")
    gateways = Gateways(loading(victim.shell.database), nowhere, platform=ours, master_keys=keys, connect_client_id="ca_test")
    victim.leaves.push_async_callback(nowhere.close)
    victim.leaves.push_async_callback(gateways.close)
    victim.client._transport.app.state.service.shared = Shared(Access(gateways, keys))  # type: ignore[attr-defined]
    named = {"payment_id": payment_id, "tenant_id": victim.tenant_id, "state": "s" * 43, "reconciliation_id": run_id}
    named |= {"refund_id": refund.refund_id, "dispute_id": dispute_id(payment_id, case.provider_id)}
    return {name: str(value) for name, value in named.items()}


async def _identity(victim: Victim) -> dict[str, str]:
    client_id, secret_id = await client_of(victim.shell, victim.tenant_id, sorted(ROLES[CLIENT]))
    return {"tenant_id": str(victim.tenant_id), "client_id": client_id, "secret_id": str(secret_id)}


SEEDS = {"cart": _cart, "checkout": _checkout, "payments": _payments, "identity": _identity}


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
    own = {"cart", "checkout", "cart_claim", "timer", "outbox_event", "idempotency_key"}
    assert changed <= own, "of their own, a new cart and a checkout of it"


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
        Routes().get("/ops/everything")(guard("ops:read")(answer))  # type: ignore[type-var] # never called
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
