"""API keys over HTTP, on a real database: shown once, exchanged for a token, and over when they are over."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
import jwt
import pytest

from libs.common.auth import CLIENT, ROLES, InvalidTokenError
from libs.common.clock import PLATFORM, now, rfc3339
from libs.common.messaging.shell import Shell
from libs.common.shared import Shared
from services.identity.api.issuer import Issuer
from services.identity.domain.access import Grant
from services.identity.domain.api_key import client_id_of, text_of
from tests.shared.callers import Person, edge, problem
from tests.shared.places import Place, Places
from tests.shared.signing import issuer_of
from tests.shared.victims import client_of, tenant_of

HOLDER = ["carts:read", "clients:manage", "orders:read"]


@dataclass
class Shop:
    """A tenant at identity, and a client of its that may make keys."""

    http: httpx.AsyncClient
    shell: Shell
    place: Place
    tenant_id: UUID
    client_id: str
    subject: UUID = field(default_factory=uuid4)

    @property
    def owner(self) -> dict[str, str]:
        claims = {"client_id": self.client_id}
        return Person(self.tenant_id, self.subject, CLIENT, scope=HOLDER, claims=claims).authorization

    async def make(self, scopes: Sequence[str] = ("carts:read",), key: str = "", **members: Any) -> httpx.Response:
        headers = {**self.owner, "Idempotency-Key": key or uuid4().hex}
        body = {"name": "A warehouse", "scopes": list(scopes), **members}
        return await self.http.post("/v1/api-keys", json=body, headers=headers)

    async def exchange(self, key: str, password: str = "", **form: str) -> httpx.Response:
        basic = b64encode(f"{quote(key, safe='')}:{quote(password, safe='')}".encode()).decode()
        body = {"grant_type": "client_credentials", **form}
        return await self.http.post("/oauth/token", data=body, headers={"Authorization": f"Basic {basic}"})

    async def change(self, key_id: str, assignment: str) -> None:
        admin = await self.place.as_admin()
        await admin.execute(f"UPDATE api_key SET {assignment} WHERE id = $1", UUID(key_id))
        await admin.close()

    async def count(self, query: str) -> int:
        admin = await self.place.as_admin()
        found: int = await admin.fetchval(query)
        await admin.close()
        return found


@pytest.fixture
async def shop(shared: Places) -> AsyncIterator[Shop]:
    place = shared("identity")
    async with edge(place) as (http, shell):
        service = http._transport.app.state.service  # type: ignore[attr-defined]
        service.shared = Shared(await issuer_of(shell, service.verifier))
        tenant_id = await tenant_of(shell, "identity")
        yield Shop(http, shell, place, tenant_id, (await client_of(shell, tenant_id, HOLDER))[0])


async def test_a_key_is_shown_once_and_exchanged_for_a_token_that_says_what_it_may(shop: Shop) -> None:
    made = await shop.make(["orders:read", "carts:read"], key="once")
    body = made.json()
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    assert made.headers["location"] == f"/v1/api-keys/{body['id']}"
    assert body["key"].startswith(f"cwk_{body['id']}_")
    again = await shop.make(["orders:read", "carts:read"], key="once")
    assert (again.status_code, problem(again)["code"], problem(again)["id"]) == (409, "secret-not-replayable", body["id"])

    granted = await shop.exchange(body["key"])
    claims = jwt.decode(granted.json()["access_token"], options={"verify_signature": False})
    assert (granted.status_code, granted.json()["scope"], granted.json()["expires_in"]) == (200, "carts:read orders:read", 300)
    assert (claims["tid"], claims["client_id"], claims["sub"]) == (str(shop.tenant_id), f"cwk_{body['id']}", body["id"])
    narrow = await shop.exchange(body["key"], scope="carts:read", resource="cart")
    assert (narrow.json()["scope"], (await shop.exchange(body["key"], scope="stock:read")).json()["error"]) == (
        "carts:read",
        "invalid_scope",
    )

    secret = body["key"].removeprefix(f"cwk_{body['id']}_")
    for path in ("/v1/api-keys", made.headers["location"]):
        told = await shop.http.get(path, headers=shop.owner)
        assert secret not in told.text
        assert rfc3339(now())[:10] in told.text, "on which day it was last used"
    stored = await shop.count("SELECT count(*) FROM api_key WHERE api_key::text LIKE '%" + secret + "%'")
    assert stored == 0


async def test_nobody_makes_a_key_that_may_more_than_they_do(shop: Shop) -> None:
    beyond = await shop.make(["carts:read", "stock:read"])
    assert (beyond.status_code, problem(beyond)["code"], problem(beyond)["scopes"]) == (
        422,
        "scope-not-grantable",
        ["stock:read"],
    )
    own = (await shop.make(["clients:manage", "carts:read"])).json()
    token = {"Authorization": f"Bearer {(await shop.exchange(own['key'])).json()['access_token']}"}
    body: dict[str, Any] = {"name": "n", "scopes": ["orders:read"]}
    through = await shop.http.post("/v1/api-keys", json=body, headers={**token, "Idempotency-Key": "k"})
    assert problem(through)["code"] == "scope-not-grantable", "nor by way of one"
    await shop.change(own["id"], "scopes = '[\"clients:manage\"]'")
    less = await shop.http.post(
        "/v1/api-keys", json={**body, "scopes": ["carts:read"]}, headers={**token, "Idempotency-Key": "l"}
    )
    assert problem(less)["code"] == "scope-not-grantable", "its row counts, not what its token still says"
    operator = Person(PLATFORM, role="platform-operator").authorization
    refused = await shop.http.post("/v1/api-keys", json=body, headers={**operator, "Idempotency-Key": "o"})
    assert (refused.status_code, problem(refused)["code"]) == (403, "tenant-only")
    for expires_at in (rfc3339(now() - timedelta(seconds=1)), "9999-01-01T00:00:00Z"):
        assert (await shop.make(expires_at=expires_at)).status_code == 422


async def test_unknown_wrong_foreign_expired_and_removed_keys_are_answered_alike(shop: Shop) -> None:
    made = [(await shop.make()).json() for _ in range(3)]
    key, key_id = made[0]["key"], UUID(made[0]["id"])
    await shop.change(made[1]["id"], "created_at = now() - interval '2 s', expires_at = now() - interval '1 s'")
    removed = await shop.http.delete(f"/v1/api-keys/{made[2]['id']}", headers=shop.owner)
    assert removed.status_code == 204
    refused = [
        await shop.exchange(text_of(shop.tenant_id, uuid4(), bytes(32))),
        await shop.exchange(text_of(shop.tenant_id, key_id, bytes(32))),
        await shop.exchange(text_of(uuid4(), key_id, bytes(32))),
        await shop.exchange(made[1]["key"]),
        await shop.exchange(made[2]["key"]),
        await shop.exchange(key, password="x"),
        await shop.exchange(key[:-1]),
        await shop.exchange("cwk_"),
    ]
    assert {each.status_code for each in refused} == {401}
    assert {each.text for each in refused} == {refused[0].text}
    assert refused[0].json()["error"] == "invalid_client"
    assert (await shop.exchange(key)).status_code == 200
    gone = await shop.http.delete(f"/v1/api-keys/{made[2]['id']}", headers=shop.owner)
    assert (gone.status_code, (await shop.http.get("/v1/api-keys", headers=shop.owner)).text.count("cwk_")) == (404, 0)


async def test_a_removed_key_ends_the_tokens_it_was_exchanged_for_in_the_same_transaction(shop: Shop) -> None:
    made = (await shop.make(["clients:manage"])).json()
    key_id, granted = made["id"], (await shop.exchange(made["key"])).json()
    holder = {"Authorization": f"Bearer {granted['access_token']}"}
    assert (await shop.http.get("/v1/api-keys", headers=holder)).status_code == 200
    raised = f"SELECT count(*) FROM epoch WHERE kind = 'client' AND id = 'cwk_{key_id}'"
    told = f"SELECT count(*) FROM outbox_event WHERE encode(payload, 'escape') LIKE '%cwk_{key_id}%'"
    assert (await shop.count(raised), await shop.count(told)) == (0, 0)
    await shop.http.delete(f"/v1/api-keys/{key_id}", headers=shop.owner)
    assert (await shop.count(raised), await shop.count(told)) == (1, 1)
    assert (await shop.http.get("/v1/api-keys", headers=holder)).status_code == 401
    assert (await shop.http.get("/v1/api-keys", headers=shop.owner)).status_code == 200, "and nobody else's"


async def test_a_token_that_is_being_made_while_its_key_is_removed_ends_with_the_others(shop: Shop) -> None:
    """It is lifted above an epoch that was known before the key was looked up, and above none that came after."""
    for _ in range(10):
        made = (await shop.make(["clients:manage"])).json()
        racing, _ = await asyncio.gather(
            shop.exchange(made["key"]), shop.http.delete(f"/v1/api-keys/{made['id']}", headers=shop.owner)
        )
        if racing.status_code == 200:
            holder = {"Authorization": f"Bearer {racing.json()['access_token']}"}
            assert (await shop.http.get("/v1/api-keys", headers=holder)).status_code == 401


async def test_a_grant_that_was_looked_up_before_its_key_was_removed_is_not_lifted_above_the_removal(shop: Shop) -> None:
    service = shop.http._transport.app.state.service  # type: ignore[attr-defined]
    issuer = service.shared(Issuer)
    key_id = UUID((await shop.make()).json()["id"])
    client_id = client_id_of(key_id)
    grant = Grant(
        subject_id=key_id, client_id=client_id, tenant_id=shop.tenant_id, roles=(CLIENT,), permissions=frozenset({"carts:read"})
    )
    known_ms = issuer.raised.latest(shop.tenant_id, client_id)
    await shop.http.delete(f"/v1/api-keys/{key_id}", headers=shop.owner)
    late = (await issuer.answer(grant, known_ms=known_ms)).access_token
    with pytest.raises(InvalidTokenError) as refused:
        await service.verifier.verify(late)
    assert refused.value.reason == "revoked"
    told = (await issuer.answer(grant, known_ms=issuer.raised.latest(shop.tenant_id, client_id))).access_token
    assert (await service.verifier.verify(told)).client_id == client_id, "what is granted knowing of it is above it"


async def test_a_key_of_a_tenant_that_lets_no_machine_in_is_answered_like_any_that_does_not_count(shop: Shop) -> None:
    key = (await shop.make()).json()["key"]
    assert (await shop.exchange(key)).status_code == 200
    admin = await shop.place.as_admin()
    await admin.execute("UPDATE tenant SET status = 'erasing' WHERE tenant_id = $1", shop.tenant_id)
    await admin.close()
    refused, unknown = await shop.exchange(key), await shop.exchange(text_of(shop.tenant_id, uuid4(), bytes(32)))
    assert (refused.status_code, refused.text) == (401, unknown.text)


async def test_a_day_of_grants_is_one_write_and_no_new_version(shop: Shop) -> None:
    made = (await shop.make()).json()
    row = f"SELECT (xmin::text::bigint * 1000 + version) FROM api_key WHERE id = '{made['id']}'"
    versions = set()
    for _ in range(5):
        assert (await shop.exchange(made["key"])).status_code == 200
        versions.add(await shop.count(row))
    assert len(versions) == 1
    assert await shop.count(f"SELECT version FROM api_key WHERE id = '{made['id']}'") == 1
    renamed = await shop.http.patch(f"/v1/api-keys/{made['id']}", json={"name": "Another"}, headers=shop.owner)
    assert (renamed.json()["name"], renamed.json()["last_used_on"]) == ("Another", rfc3339(now())[:10])


async def test_a_client_says_when_it_was_last_used_too(shop: Shop) -> None:
    path = f"/v1/clients/{shop.client_id}"
    assert "last_used_on" not in (await shop.http.get(path, headers=shop.owner)).json()
    form = {"grant_type": "client_credentials", "client_id": shop.client_id, "client_secret": "s"}
    assert (await shop.http.post("/oauth/token", data=form)).status_code == 200
    assert (await shop.http.get(path, headers=shop.owner)).json()["last_used_on"] == rfc3339(now())[:10]
    assert set(HOLDER) <= ROLES[CLIENT]
