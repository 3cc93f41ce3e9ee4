"""Somebody with something in each service, and every operation with what it is asked with."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx

from libs.common.auth import CLIENT, ROLES
from libs.common.clock import now
from libs.common.contracts.catalog import PriceChanged, ProductPublished
from libs.common.http.operator import OperatorRoute
from libs.common.http.routes import GuardedRoute
from libs.common.messaging.shell import Shell
from libs.common.sealing import MasterKey, MasterKeys
from libs.common.shared import Shared
from services import SERVICES
from services.checkout.jobs.admission import let_in_once
from services.checkout.repository import CHECKOUTS
from services.identity.domain.role import OWNER
from services.payments.domain.money.dispute import dispute_id
from services.payments.domain.provider.outcome import DisputeStatus
from services.payments.domain.reconciliation.comparison import BreakKind, Found, Side, Standing, Subject
from services.payments.gateway.accounts import Access, Credentials, Gateways
from services.payments.gateway.stripe import Stripe
from services.payments.handlers.disputes import ObserveDispute
from services.payments.handlers.reconciliation import RecordFindings, RequestReconciliation, TakeUpReconciliation
from services.payments.repository.provider.accounts import loading
from tests.shared.callers import Person, count, message
from tests.shared.events import cart_frozen_for, frozen_line, payment_authorized, payment_captured
from tests.shared.paying import AMOUNT, captured, dispute_seen, wanted
from tests.shared.people import desk, staffed
from tests.shared.places import Place
from tests.shared.signing import issuer_of
from tests.shared.victims import CANARY, api_key_of, client_of

FOREVER_OPEN = {"/v1/sessions", "/v1/order-lookups", "/v1/webhooks/stripe", "/v1/webhooks/stripe/{tenant_id}", "/oauth/token"}
NEVER_SET = {"/v1/provider-accounts/stripe"}
"""What the victim has none of: it is begun at the provider, who is nowhere here."""
FOREVER_OPEN |= {"/v1/password-resets", "/v1/password-resets/confirm"}
FOREVER_OPEN |= {"/v1/invitations/accept", "/oauth/authorize", "/oauth/revoke", "/oauth/introspect"}
FOREVER_OPEN |= {"/v1/sessions/current", "/v1/sessions/{session_id}"}  # for any token, and nobody without one
FOREVER_OPEN |= {f"/v1/second-factors{each}" for each in ("", "/confirm", "/recovery-codes", "/remove")}  # for a member's token
FOREVER_OPEN |= {"/.well-known/jwks.json", "/.well-known/oauth-authorization-server", "/v1/storefronts/{slug}"}


BODIES: Mapping[str, Mapping[str, Any]] = {
    "PUT /v1/tenants/{tenant_id}/cell": {"cell": "east"},
    "PUT /v1/carts/{cart_id}/lines": {"lines": [{"sku": "tea", "quantity": 1}]},
    "PUT /v1/carts/{cart_id}/lines/{sku}": {"quantity": 1},
    "POST /v1/carts/{cart_id}/lines": {"sku": "tea", "quantity": 1},
    "PUT /v1/promotions/{code}": {"name": "n", "kind": "percentage", "percent": "10", "requires_coupon": True},
    "POST /v1/checkouts": {"cart_id": "checkout_id", "payment": {"method": "pm_card_visa"}},
    "POST /v1/orders/{order_id}/refunds": {"amount_minor": 1, "reason": "r"},
    "POST /v1/orders/{order_id}/notes": {"body": "b"},
    "PUT /v1/stock/{sku}": {"policy": "backorder"},
    "PUT /v1/drops/{sku}": {"per_minute": 1_000_000},
    "PUT /v1/shipping-methods/{code}": {"name": "n", "kind": "weight", "currency": "GBP", "rates": [{"amount_minor": 300}]},
    "PUT /v1/tax-rates/{country}/{category}": {"name": "n", "rate": "20"},
    "POST /v1/payments/{payment_id}/refunds": {"amount_minor": 1, "reason": "r"},
    "POST /v1/payments/{payment_id}/resolve": {"verdict": "read-again", "reason": "r"},
    "POST /ops/payments/{payment_id}/resolve": {"tenant_id": "tenant_id", "verdict": "read-again", "reason": "r"},
    "POST /v1/reconciliations/{reconciliation_id}/breaks/{break_id}/close": {"reason": "r"},
    "POST /v1/refunds/{refund_id}/close": {"reason": "r"},
    "POST /ops/refunds/{refund_id}/close": {"tenant_id": "tenant_id", "reason": "r"},
    "POST /ops/breaks/{break_id}/close": {"tenant_id": "tenant_id", "reason": "r"},
    "POST /ops/reconciliations": {"tenant_id": "tenant_id"},
    "PUT /v1/provider-accounts/stripe": {"api_key": "sk_test_0123456789abcdef", "webhook_secrets": ["whsec_0123456789abcdef"]},
    "POST /v1/provider-accounts/stripe/connections/{state}": {"code": "ac_1234567890"},
    "POST /v1/clients": {"name": "n", "scopes": ["carts:read"]},
    "POST /v1/api-keys": {"name": "n", "scopes": ["carts:read"]},
    "PATCH /v1/api-keys/{key_id}": {"name": "n"},
    "POST /v1/tenants": {"slug": "s-walls", "name": "n", "currency": "GBP", "country": "GB", "admin_email": "a@shop.test"},
    "PATCH /v1/tenants/{tenant_id}": {"name": "n"},
    "POST /v1/roles": {"name": "packer", "permissions": ["orders:read"]},
    "PATCH /v1/roles/{role_name}": {"description": "d"},
    "PATCH /v1/members/{member_id}": {"roles": ["viewer"]},
    "POST /v1/invitations": {"email": "new@shop.test", "roles": ["viewer"]},
    "POST /ops/parked-messages/{id}/discard": {"reason": "r"},
    **{f"POST /v1/{service}-parked-messages/{{parked_id}}/discard": {"reason": "r"} for service in SERVICES},
}
"""What each is asked with that needs a body. A text that is the name of one of the victim's ids stands for that id."""


ENDING = ("/suspend", "/close", "/erase")
"""Of a tenant: no token of it is good any more. Other paths end so too, and are none the worse for being late."""


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
        """Every one, late those that make something, last those that end tokens.

        A path's new parameter without an entry in `ids` is a KeyError."""
        found: list[Operation] = []
        ids = {"tenant_id": str(self.tenant_id), "slug": "of-nobody", **self.ids}
        for route in self.routes:
            path = route.path.replace(":path}", "}")
            for name in route.param_convertors:
                path = path.replace("{" + name + "}", quote(ids[name], safe=""))
            if isinstance(route, GuardedRoute) and route.rule.permission is None:
                assert route.path in FOREVER_OPEN, f"{route.path} is open to everybody"
                continue
            methods = (route.methods or set()) - {"HEAD"}
            found += [Operation(method, path, route, {"Idempotency-Key": uuid4().hex}) for method in methods]
        order = ("GET", "DELETE", "POST", "PATCH", "PUT")
        return sorted(found, key=lambda each: (each.path.endswith(ENDING), order.index(each.method)))

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
    shop, body = Person(victim.tenant_id, role=CLIENT).authorization, {**BODIES["PUT /v1/promotions/{code}"], "name": CANARY}
    made = await victim.client.put("/v1/promotions/tenth", json=body, headers=shop)
    assert made.status_code == 201
    return {"cart_id": str(cart_id), "sku": "tea", "code": "tenth"}


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
    made = await victim.client.put("/v1/drops/tea", json=BODIES["PUT /v1/drops/{sku}"], headers=shop)
    assert made.status_code == 200, made.text
    made = await victim.client.post("/v1/drops/tea/places", headers=headers)
    assert made.status_code == 201, made.text
    assert await let_in_once(victim.shell), "who is let in has nothing left to wait for, and no stream of it goes on"
    return ids


async def _payments(victim: Victim) -> dict[str, str]:
    payment_id = await captured(victim.shell, victim.tenant_id, subject_id=victim.shopper.subject)
    refund, run_id = wanted(payment_id, 100), uuid4()
    case = dispute_seen(DisputeStatus.NEEDS_RESPONSE, AMOUNT, 0, 1_500)
    begun, ended, none = now() - timedelta(days=1), now(), timedelta(0)
    compare = RequestReconciliation(reconciliation_id=run_id, window_from=begun, window_to=ended, grace=none, requested_by=CANARY)
    broken = Side(
        subject=Subject.PAYMENT,
        our_id=payment_id,
        provider_id="pi_lost",
        payment_id=payment_id,
        standing=Standing.MOVED,
        state=CANARY,
        amount_minor=AMOUNT,
        currency="GBP",
        made_at=begun,
        since=begun,
    )
    found = Found(kind=BreakKind.MISSING_THERE, ours=broken, theirs=None)
    taken_up = TakeUpReconciliation(reconciliation_id=run_id)
    findings = RecordFindings(reconciliation_id=run_id, tries=1, found=(found,))
    for command in (refund, ObserveDispute(payment_id=payment_id, seen=case), compare, taken_up, findings):
        await victim.shell.execute(message(command, victim.tenant_id))
    nowhere, keys, ours = Stripe("http://127.0.0.1:9"), MasterKeys(MasterKey(bytes(32))), Credentials("sk_test_walls")
    gateways = Gateways(loading(lambda _: victim.shell), nowhere, platform=ours, master_keys=keys, connect_client_id="ca_test")
    victim.leaves.push_async_callback(nowhere.close)
    victim.leaves.push_async_callback(gateways.close)
    victim.client._transport.app.state.service.shared = Shared(Access(gateways, keys))  # type: ignore[attr-defined]
    named = {"payment_id": payment_id, "tenant_id": victim.tenant_id, "state": "s" * 43, "reconciliation_id": run_id}
    named |= {
        "break_id": found.key(victim.tenant_id),
        "refund_id": refund.refund_id,
        "dispute_id": dispute_id(payment_id, case.provider_id),
    }
    return {name: str(value) for name, value in named.items()}


async def _identity(victim: Victim) -> dict[str, str]:
    client_id, secret_id = await client_of(victim.shell, victim.tenant_id, sorted(ROLES[CLIENT]))
    service = victim.client._transport.app.state.service  # type: ignore[attr-defined]
    issuer, taking_in = await issuer_of(victim.shell, service.verifier), desk()
    service.shared = Shared((issuer, taking_in))
    staff = await staffed(victim.shell, taking_in, victim.tenant_id, OWNER, "clerk")
    ids = {"tenant_id": victim.tenant_id, "client_id": client_id, "secret_id": secret_id, "session_id": uuid4(), **staff}
    ids |= {"key_id": await api_key_of(victim.shell, victim.tenant_id), "kid": (await issuer.ring.mint()).kid}
    return {name: str(value) for name, value in ids.items()}


SEEDS = {"cart": _cart, "checkout": _checkout, "payments": _payments, "identity": _identity}
