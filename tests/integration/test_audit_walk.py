"""Every route that changes something is walked, by staff and operators: the trail tells of each, by whom, and no secret."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from importlib import import_module
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest

from deploy.composition import parts_of
from libs.common.auth import CLIENT, PLATFORM_OPERATOR
from libs.common.clock import PLATFORM, now
from libs.common.contracts import Event
from libs.common.messaging.shell import Shell
from libs.common.sealing import MasterKey, MasterKeys
from libs.common.shared import Shared
from services import SERVICES
from services.identity.api.issuer import Issuer
from services.identity.api.seals import Seals
from services.identity.domain.role import OWNER
from services.identity.domain.tenant import PROVISIONERS
from services.payments.domain.provider.outcome import RefundStatus, Unknown
from services.payments.domain.reconciliation.comparison import BreakKind, Found, Side, Standing, Subject
from services.payments.handlers.reconciliation import RecordFindings, RequestReconciliation, TakeUpReconciliation
from services.payments.handlers.refunds import ObserveRefund
from tests.integration.factor_walk import second_factor_is_walked
from tests.integration.shop import Shop, shop_at
from tests.integration.till_edge import ACCOUNT, NEW, a_key, payments_edge
from tests.shared.callers import Person, edge, message, onboard
from tests.shared.events import payment_requested
from tests.shared.paying import AMOUNT, always, answer, captured, opened, refund_of, wanted
from tests.shared.people import PASSWORD, desk, holder
from tests.shared.places import Place, Places
from tests.shared.signing import MASTER_KEY, issuer_of
from tests.shared.victims import parked

MAIL, CARD = "canary.person@shop.test", "4242 4242 4242 4242"
WRITTEN = f"asked by {MAIL}, card {CARD}"
OPERATOR = Person(PLATFORM, role=PLATFORM_OPERATOR)
CHANGING = {"POST", "PUT", "PATCH", "DELETE"}

UNAUDITED = {
    "cart": {"CreateCart", "ClaimCart", "PutLines", "AddQuantity", "RemoveLines", "PutCoupon", "RemoveCoupon"},
    "checkout": {"StartCheckout", "ResumeCheckout", "JoinQueue"},
    "identity": {"StartSession", "RefreshSession", "TakeOver", "RevokeSession", "RevokeToken"}
    | {"IssueCode", "RedeemCode", "ReadStanding", "AskPasswordReset"},
}
"""The commands that a handler declares unaudited: shopping, buying, coming in. Each says why."""

NO_ACTS = {
    "cart": {("POST", "/v1/carts"), ("POST", "/v1/carts/{cart_id}/claim"), ("PUT", "/v1/carts/{cart_id}")}
    | {(method, "/v1/carts/{cart_id}/lines") for method in ("PUT", "POST", "DELETE")}
    | {(method, f"/v1/carts/{{cart_id}}/{each}") for method in ("PUT", "DELETE") for each in ("lines/{sku}", "coupons/{code}")},
    "checkout": {("POST", "/v1/checkouts"), ("POST", "/v1/checkouts/{checkout_id}/resume")}
    | {("POST", "/v1/order-lookups"), ("POST", "/v1/drops/{sku}/places")},
    "identity": {("POST", "/v1/sessions"), ("DELETE", "/v1/sessions/current")}
    | {("POST", "/v1/password-resets"), ("POST", "/v1/password-resets/confirm")}
    | {("POST", f"/oauth/{each}") for each in ("token", "authorize", "introspect", "revoke")},
    "payments": {("POST", "/v1/webhooks/stripe"), ("POST", "/v1/webhooks/stripe/{tenant_id}")}
    | {("POST", f"{ACCOUNT}/connections"), ("POST", "/v1/payments/{payment_id}/resolve")},
}
"""The routes that change nothing of a shop's, for its shoppers, by the provider's word, or by no more than a wish.

A payment's outcome is resolved by the same command under `/ops`, where it is walked. Whoever chooses another password does so
in `test_password_resets`, where there are letters."""


@pytest.mark.parametrize("service", SERVICES)
def test_a_command_is_audited_unless_its_handler_says_why_not(service: str) -> None:
    handlers = parts_of(service).handlers.table
    exempt = {each.__name__: handler.unaudited for each, handler in handlers.items() if handler.unaudited is not None}
    assert {*exempt} == UNAUDITED.get(service, set())
    assert all(len(why or "") > 20 for why in exempt.values())
    assert not any(issubclass(each, Event) for each, handler in handlers.items() if handler.always_audited)
    assert "/v1/audit-entries" in {getattr(route, "path", "") for route in parts_of(service).routes.routes}


@dataclass
class Walk:
    """Acts over HTTP, each looked up in the trail at once."""

    place: Place
    client: httpx.AsyncClient
    walked: set[tuple[str, str]] = field(default_factory=set)
    secrets: set[str] = field(default_factory=lambda: {MAIL, CARD, CARD.replace(" ", "")})

    @property
    def routes(self) -> Any:
        transport: Any = self.client._transport
        return transport.app.routes

    async def act(self, who: Person, method: str, path: str, of: UUID, kinds: set[str], **request: Any) -> Any:
        """Do it, and find the entries of just this request: of these kinds of things, in this tenant's trail, by this person."""
        request_id, own = uuid4().hex, who.authorization
        self.secrets.add(own["Authorization"].removeprefix("Bearer "))
        headers = {**own, "Idempotency-Key": request_id, "X-Request-Id": request_id}
        done = await self.client.request(method, path, headers=headers, **request)
        assert done.status_code < 300, (method, path, done.text)
        assert done.headers["x-request-id"] == request_id
        found = await self.entries(request_id)
        assert {row["object_kind"] for row in found} == kinds, (method, path)
        for row in found:
            whose = (row["tenant_id"], row["actor"], row["client_id"], row["session_id"], row["by_platform"])
            assert whose == (of, str(who.subject), "test", who.claims.get("sid", ""), who.tenant_id == PLATFORM), (method, path)
            assert row["address"] == "127.0.0.0/24"
        scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
        [route] = [each.path for each in self.routes if each.matches(scope)[0].name == "FULL"]
        self.walked.add((method, route))
        return orjson.loads(done.content) if done.content else None

    async def entries(self, of: str | UUID) -> list[Any]:
        """Those of a request, or of a tenant."""
        name = "tenant_id" if isinstance(of, UUID) else "request_id"
        admin = await self.place.as_admin()
        try:
            return list(await admin.fetch(f"SELECT * FROM audit_entry WHERE {name} = $1 ORDER BY number", of))
        finally:
            await admin.close()

    async def repair(self, tenant_id: UUID) -> None:
        """The four ways to repair what was parked."""
        staff, kind = Person(tenant_id, role=CLIENT), {"parked-message"}
        service = self.place.service
        own = f"/v1/{service}-parked-messages"
        if service != "identity":
            replayable, given_up = await _waiting(self.place, tenant_id), await parked(self.place, tenant_id)
            await self.act(staff, "POST", f"{own}/{replayable}/replay", tenant_id, kind)
            await self.act(staff, "POST", f"{own}/{given_up}/discard", tenant_id, kind, json={"reason": WRITTEN})
            replayable = await _waiting(self.place, tenant_id)
            await self.act(OPERATOR, "POST", f"/ops/parked-messages/{replayable}/replay", tenant_id, kind)
        given_up = await parked(self.place, tenant_id)
        path = f"/ops/parked-messages/{given_up}/discard"
        await self.act(OPERATOR, "POST", path, tenant_id, kind, json={"reason": WRITTEN})

    async def done(self) -> None:
        """Every route was walked, or changes nothing; and of what was written and shown meanwhile nothing is in the trail."""
        changing = {
            (method, route.path) for route in self.routes for method in CHANGING & {*(getattr(route, "methods", None) or ())}
        }
        unwalked = {("POST", "/ops/parked-messages/{id}/replay")} if self.place.service == "identity" else set()
        assert changing == self.walked | NO_ACTS[self.place.service] | unwalked
        admin = await self.place.as_admin()
        rows = await admin.fetch("SELECT * FROM audit_entry")
        await admin.close()
        told = " ".join(repr(value) for row in rows for value in row)
        assert [secret for secret in self.secrets if secret in told] == []
        assert "asked by" in told, "a reason is there, without what is nobody's business"


async def _waiting(place: Place, tenant_id: UUID) -> str:
    """A message that can be decided now: of a tenant that is news to nobody."""
    headers = [["ce_id", str(uuid4())], ["ce_source", "/cartwright/identity"], ["ce_type", "tenant.updated"]]
    headers += [["ce_tenantid", str(tenant_id)], ["ce_sequence", "1"], ["ce_time", "2026-01-01T00:00:00Z"]]
    headers += [["ce_relayposition", "identity/1.1.1"], ["ce_subject", str(tenant_id)]]
    told = {"tenant_id": str(tenant_id), "version": 0, "slug": "s", "status": "active", "currency": "GBP", "country": "GB"}
    payload = orjson.dumps({**told, "settings": {}})
    waiting = {"state": "parked", "reason": "ValueError", "topic": "tenant.v1", "key": f"{tenant_id}:{tenant_id}".encode()}
    return await parked(place, tenant_id, **waiting, headers=orjson.dumps(headers), payload=payload, type="tenant.updated")


@asynccontextmanager
async def _edge(place: Place) -> AsyncIterator[tuple[Walk, UUID, Person]]:
    async with edge(place) as (client, shell):
        tenant_id = await onboard(shell) if place.service != "identity" else uuid4()
        staff = Person(tenant_id, role=CLIENT, claims={"sid": str(uuid4())})
        yield Walk(place, client), tenant_id, staff


async def test_cart_is_walked(empty: Places) -> None:
    async with _edge(empty("cart")) as (walk, tenant_id, staff):
        for method, body in (("PUT", {"name": WRITTEN, "kind": "percentage", "percent": "10"}), ("DELETE", None)):
            await walk.act(staff, method, "/v1/promotions/spring", tenant_id, {"promotion", "offers"}, json=body)
        await walk.repair(tenant_id)
        await walk.done()


async def test_identity_is_walked(empty: Places) -> None:
    async with _edge(empty("identity")) as (walk, _, __):
        transport: Any = walk.client._transport
        service = transport.app.state.service
        service.shared = Shared((await issuer_of(service.shell, service.verifier), desk()))
        new = {"slug": "walked", "name": WRITTEN, "currency": "GBP", "country": "GB", "admin_email": MAIL}
        request_id = uuid4().hex
        made = await walk.client.post(
            "/v1/tenants", json=new, headers={**OPERATOR.authorization, "Idempotency-Key": "k", "X-Request-Id": request_id}
        )
        tenant_id = UUID(made.json()["tenant_id"])
        told = await walk.entries(request_id)
        assert {each["object_kind"]: (each["tenant_id"], each["action"], each["object_id"]) for each in told} == {
            "tenant": (tenant_id, "onboard-tenant", str(tenant_id)),
            "invitation": (tenant_id, "onboard-tenant", made.json()["owner"]["id"]),
        }
        walk.walked.add(("POST", "/v1/tenants"))
        for publisher in PROVISIONERS:
            provisioned = import_module(f"libs.common.contracts.{publisher}").TenantProvisioned
            await service.shell.execute(message(provisioned(tenant_id=tenant_id, service=publisher, tenant_version=1), tenant_id))
        staff = Person(tenant_id, role=CLIENT, claims={"sid": str(uuid4())})
        await walk.act(staff, "PATCH", f"/v1/tenants/{tenant_id}", tenant_id, {"tenant"}, json={"name": f"{WRITTEN} too"})
        client = {"name": WRITTEN, "scopes": ["carts:read"], "tenant_id": str(tenant_id)}
        first = await walk.act(OPERATOR, "POST", "/v1/clients", tenant_id, {"client"}, json=client)
        path = f"/v1/clients/{first['client_id']}"
        second = await walk.act(staff, "POST", f"{path}/secrets", tenant_id, {"client"})
        walk.secrets |= {first["client_secret"], second["client_secret"]}
        await walk.act(staff, "DELETE", f"{path}/secrets/{second['secret_id']}", tenant_id, {"client", "epoch"})
        await walk.act(staff, "DELETE", path, tenant_id, {"client", "epoch"})
        await _staff_is_walked(walk, tenant_id, made.json()["owner"]["token"])
        key = await walk.act(staff, "POST", "/v1/api-keys", tenant_id, {"api-key"}, json={"name": MAIL, "scopes": ["carts:read"]})
        walk.secrets.add(key["key"])
        path = f"/v1/api-keys/{key['id']}"
        await walk.act(staff, "PATCH", path, tenant_id, {"api-key"}, json={"name": f"{WRITTEN} too"})
        await walk.act(staff, "DELETE", path, tenant_id, {"api-key", "epoch"})
        await _walk_keys(walk)
        await walk.act(OPERATOR, "PUT", f"/v1/tenants/{tenant_id}/cell", tenant_id, {"tenant"}, json={"cell": "east"})
        ends = {"tenant", "epoch"}
        for verb, kinds in (("suspend", ends), ("resume", {"tenant"}), ("close", ends), ("erase", ends)):
            await walk.act(OPERATOR, "POST", f"/v1/tenants/{tenant_id}/{verb}", tenant_id, kinds)
        await walk.repair(tenant_id)
        await walk.done()


async def _walk_keys(walk: Walk) -> None:
    """What operators do with signing keys is theirs, under the platform."""
    service = walk.client._transport.app.state.service  # type: ignore[attr-defined]
    issuer, kinds = service.shared(Issuer), {"signing-key"}
    rotated = await walk.act(OPERATOR, "POST", "/ops/signing-keys/rotate", PLATFORM, kinds)
    await walk.act(OPERATOR, "POST", f"/ops/signing-keys/{rotated['previous_kid']}/revoke", PLATFORM, kinds)
    issuer.ring._seals = Seals(b"n" * 32, MASTER_KEY)
    await walk.act(OPERATOR, "POST", "/ops/signing-keys/rewrap", PLATFORM, kinds | {"service-secret"})


async def _staff_is_walked(walk: Walk, tenant_id: UUID, token: str) -> None:
    """Who comes in upon an invitation is nobody yet, so that entry names no actor."""
    walk.secrets |= {token, PASSWORD}
    request_id = uuid4().hex
    came = await walk.client.post(
        "/v1/invitations/accept",
        json={"token": token, "password": PASSWORD, "name": WRITTEN},
        headers={"X-Request-Id": request_id},
    )
    told = await walk.entries(request_id)
    assert {(each["action"], each["object_kind"], each["actor"]) for each in told} == {
        ("accept-invitation", kind, "") for kind in ("invitation", "member", "staff")
    }
    walk.walked.add(("POST", "/v1/invitations/accept"))
    owner, of = holder(tenant_id, UUID(came.json()["id"]), OWNER), tenant_id
    role = {"name": "packing", "permissions": ["orders:read", "orders:write"], "description": WRITTEN}
    await walk.act(owner, "POST", "/v1/roles", of, {"role"}, json=role)
    asked = {"email": f"bob.{MAIL}", "roles": ["packing"]}
    invited = await walk.act(owner, "POST", "/v1/invitations", of, {"invitation", "staff"}, json=asked)
    path = f"/v1/invitations/{invited['id']}"
    again = await walk.act(owner, "POST", f"{path}/resend", of, {"invitation", "staff"})
    walk.secrets |= {invited["token"], again["token"]}
    await walk.act(owner, "DELETE", path, of, {"invitation", "staff"})
    second = await walk.act(owner, "POST", "/v1/invitations", of, {"invitation", "staff"}, json=asked)
    accepted = {"token": second["token"], "password": PASSWORD, "name": "Bob"}
    bob = f"/v1/members/{(await walk.client.post('/v1/invitations/accept', json=accepted)).json()['id']}"
    fewer = {"permissions": ["orders:read"]}
    await walk.act(owner, "PATCH", "/v1/roles/packing", of, {"role", "epoch"}, json=fewer)
    await walk.act(owner, "PATCH", bob, of, {"member", "staff"}, json={"roles": ["viewer"]})
    await walk.act(owner, "DELETE", "/v1/roles/packing", of, {"role"})
    walk.secrets |= await second_factor_is_walked(walk.act, owner)
    await walk.act(owner, "DELETE", bob, of, {"member", "staff", "epoch"})
    begun = await walk.client.post(
        "/v1/sessions", json={"shopper_ref": MAIL}, headers=Person(tenant_id, role=CLIENT).authorization
    )
    walk.secrets |= {begun.json()["refresh_token"]}
    staff = Person(tenant_id, role=CLIENT)
    held = await walk.client.get("/v1/sessions", params={"subject_id": begun.json()["subject_id"]}, headers=staff.authorization)
    await walk.act(staff, "DELETE", f"/v1/sessions/{held.json()['items'][0]['session_id']}", of, {"session", "epoch"})


async def test_checkout_is_walked(empty: Places) -> None:
    async with _edge(empty("checkout")) as (walk, tenant_id, staff):
        post = {"name": "Post", "kind": "weight", "currency": "GBP", "rates": [{"amount_minor": 1}]}
        put = {"shipping-methods/post": post, "tax-rates/GB/food": {"name": "VAT", "rate": "20"}, "drops/tea": {"per_minute": 60}}
        for (path, body), kind in zip(put.items(), ("shipping-method", "tax-table", "drop"), strict=True):
            await walk.act(staff, "PUT", f"/v1/{path}", tenant_id, {kind}, json=body)
            await walk.act(staff, "DELETE", f"/v1/{path}", tenant_id, {kind})
        await walk.act(staff, "PUT", "/v1/stock/tea", tenant_id, {"stock"}, json={"policy": "backorder"})
        await walk.repair(tenant_id)
        async with shop_at(walk.place) as shop:
            await _walk_orders(walk, shop)
        await walk.done()


async def _walk_orders(walk: Walk, shop: Shop) -> None:
    of, staff = shop.tenant_id, Person(shop.tenant_id, role=CLIENT, claims={"sid": str(uuid4())})
    paying, off, kept = await shop.paying(), await shop.ordered(is_captured=False), await shop.ordered()
    assert await walk.entries(of) == [], "what shoppers and events do is not told"
    assert len(shop.statements) > 10
    assert not any("audit" in each for each in shop.statements), "and a purchase does not ask about it"
    await walk.act(staff, "POST", f"/v1/checkouts/{paying.id}/cancel", of, {"checkout"})
    await walk.act(staff, "POST", f"/v1/orders/{off.order_id}/cancel", of, {"order", "stock"})
    order = f"/v1/orders/{kept.order_id}"
    await walk.act(staff, "POST", f"{order}/notes", of, {"note"}, json={"body": WRITTEN})
    await walk.act(staff, "POST", f"{order}/refunds", of, {"order", "refund"}, json={"amount_minor": 1, "reason": WRITTEN})


async def test_payments_is_walked(empty: Places, fake: str) -> None:
    place = empty("payments")
    async with payments_edge(place, fake, MasterKeys(NEW)) as payments:
        shell, of, walk = payments.shell, payments.tenant_id, Walk(place, payments.client)
        staff = Person(of, role=CLIENT, claims={"sid": str(uuid4())})
        await _walk_money(walk, shell, of, staff)
        other = Person(await onboard(shell), role=CLIENT)
        key, webhook = a_key(), f"whsec_{uuid4().hex}"
        account = {"api_key": key, "webhook_secrets": [webhook]}
        await walk.act(other, "PUT", ACCOUNT, other.tenant_id, {"provider-account"}, json=account)
        third = Person(await onboard(shell), role=CLIENT)
        state, code = await payments.begin(third), await payments.code()
        walk.secrets |= {key, webhook, state, code}
        path = f"{ACCOUNT}/connections/{state}"
        await walk.act(third, "POST", path, third.tenant_id, {"provider-account"}, json={"code": code})
        await walk.repair(of)
    async with payments_edge(place, fake, MasterKeys(MasterKey(bytes(32)), NEW)) as payments:
        again = Walk(place, payments.client, walk.walked, walk.secrets)
        await again.act(OPERATOR, "POST", "/ops/provider-accounts/rewrap", other.tenant_id, {"provider-account"})
        await again.done()


async def _walk_money(walk: Walk, shell: Shell, of: UUID, staff: Person) -> None:
    held = []
    for _ in range(2):
        requested = payment_requested(amount_minor=AMOUNT)
        await shell.execute(message(requested, of))
        while await answer(shell, of):
            pass
        held.append(requested.payment_id)
    planned = {"payment", "operation"}
    await walk.act(staff, "POST", f"/v1/payments/{held[0]}/capture", of, planned)
    await walk.act(staff, "POST", f"/v1/payments/{held[1]}/void", of, planned)
    while await answer(shell, of):
        pass
    taken = await captured(shell, of)
    refund = {"amount_minor": 1, "reason": WRITTEN}
    await walk.act(staff, "POST", f"/v1/payments/{taken}/refunds", of, {"payment", "refund", "operation"}, json=refund)
    await answer(shell, of)
    run_id, breaks = await _broken(shell, of, taken)
    for who, path, more, break_id in (
        (staff, f"/v1/reconciliations/{run_id}", {}, breaks[0]),
        (OPERATOR, "/ops", {"tenant_id": str(of)}, breaks[1]),
    ):
        failed, root = await _failed_refund(shell, of), path.split("/")[1]
        await walk.act(who, "POST", f"/{root}/refunds/{failed}/close", of, {"refund"}, json={"reason": WRITTEN, **more})
        await walk.act(who, "POST", f"{path}/breaks/{break_id}/close", of, {"break"}, json={"reason": WRITTEN, **more})
    other = await onboard(shell)
    wish = {"tenant_id": str(other)}
    await walk.act(OPERATOR, "POST", "/ops/reconciliations", other, {"reconciliation"}, json=wish)
    unknown = payment_requested(amount_minor=AMOUNT)
    await shell.execute(message(unknown, of))
    await answer(shell, of, always(Unknown("no answer")))
    word = {"tenant_id": str(of), "verdict": "read-again", "reason": WRITTEN}
    await walk.act(OPERATOR, "POST", f"/ops/payments/{unknown.payment_id}/resolve", of, {"operation"}, json=word)


async def _failed_refund(shell: Shell, tenant_id: UUID) -> UUID:
    payment_id = await captured(shell, tenant_id)
    refund = wanted(payment_id, 100)
    await shell.execute(message(refund, tenant_id))
    [call] = [each for each in await opened(shell, tenant_id) if each.refund_id == refund.refund_id]
    await answer(shell, tenant_id)
    failed = ObserveRefund(payment_id=payment_id, seen=refund_of(call, RefundStatus.FAILED))
    await shell.execute(message(failed, tenant_id))
    return refund.refund_id


async def _broken(shell: Shell, tenant_id: UUID, payment_id: UUID) -> tuple[UUID, list[UUID]]:
    """A reconciliation, and the breaks that it found."""
    run_id, begun = uuid4(), now() - timedelta(days=1)
    ours = Side(
        subject=Subject.PAYMENT,
        our_id=payment_id,
        provider_id="pi_lost",
        payment_id=payment_id,
        standing=Standing.MOVED,
        state="captured",
        amount_minor=AMOUNT,
        currency="GBP",
        made_at=begun,
        since=begun,
    )
    sides = [replace(ours, our_id=each, provider_id=f"pi_{each.hex}") for each in (payment_id, uuid4())]
    found = [Found(kind=BreakKind.MISSING_THERE, ours=each, theirs=None) for each in sides]
    for command in (
        RequestReconciliation(
            reconciliation_id=run_id, window_from=begun, window_to=now(), grace=timedelta(0), requested_by="a test"
        ),
        TakeUpReconciliation(reconciliation_id=run_id),
        RecordFindings(reconciliation_id=run_id, tries=1, found=tuple(found)),
    ):
        await shell.execute(message(command, tenant_id))
    return run_id, [each.key(tenant_id) for each in found]
