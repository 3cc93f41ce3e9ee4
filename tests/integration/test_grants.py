"""What tenants may do for themselves: repair their own parked messages, grant what they have; and what is written of the rest."""

from uuid import uuid4

import httpx
import orjson
from structlog.testing import capture_logs

from libs.common.auth import CLIENT, PERMISSIONS, PLATFORM_OPERATOR, PLATFORM_PERMISSIONS, ROLES
from libs.common.clock import PLATFORM
from libs.common.telemetry.security import REFUSALS, SECURITY
from tests.shared.callers import Person, edge, onboard, problem
from tests.shared.places import Places
from tests.shared.victims import client_of, parked, tenant_of

OPERATOR = Person(PLATFORM, role=PLATFORM_OPERATOR)


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
        tenant_id = await tenant_of(shell, "identity")
        small, _ = await client_of(shell, tenant_id, ["clients:manage", "carts:read"])
        large, _ = await client_of(shell, tenant_id, ["orders:refund"])

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
