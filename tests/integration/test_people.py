"""A tenant's staff: who comes in, what they may, and that nobody gets further than somebody who may has let them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from libs.common.auth import CLIENT, MEMBER, PERMISSIONS, PLATFORM_OPERATOR
from libs.common.clock import PLATFORM
from libs.common.messaging.shell import Shell
from libs.common.shared import Shared
from services.identity.api.desk import Desk
from services.identity.domain.role import BUILT_IN, OWNER
from services.identity.handlers import CreateRole
from tests.shared.callers import Person, edge, message, problem
from tests.shared.people import PASSWORD, THE_PLATFORM, desk, holder, invited, member_of
from tests.shared.places import Place, Places
from tests.shared.victims import client_of, tenant_of

MANAGING = frozenset({"members:manage", "roles:manage", "clients:manage"})


@dataclass
class House:
    """Identity with one tenant, and whoever asks."""

    place: Place
    client: httpx.AsyncClient
    shell: Shell
    desk: Desk
    tenant_id: UUID

    async def ask(self, who: Person, method: str, path: str, **body: Any) -> httpx.Response:
        headers = {**who.authorization, "Idempotency-Key": uuid4().hex}
        sent: dict[str, Any] = {"json": body} if body else {}
        return await self.client.request(method, f"/v1/{path}", headers=headers, **sent)

    async def accept(self, token: str, **changes: str) -> httpx.Response:
        body = {"token": token, "password": PASSWORD, "name": "Ada", **changes}
        return await self.client.post("/v1/invitations/accept", json=body)

    async def staff(self, *roles: str) -> Person:
        return await member_of(self.shell, self.desk, self.tenant_id, *roles)

    async def role(self, name: str, permissions: frozenset[str]) -> str:
        command = CreateRole(name=name, description="", permissions=tuple(permissions), granter=THE_PLATFORM)
        await self.shell.execute(message(command, self.tenant_id))
        return name

    async def rows(self, sql: str, *arguments: object) -> list[Any]:
        admin = await self.place.as_admin()
        try:
            return [*await admin.fetch(sql, *arguments)]
        finally:
            await admin.close()

    async def epoch_of(self, whose: UUID) -> int:
        return max([row[0] for row in await self.rows("SELECT epoch_ms FROM epoch WHERE id = $1", str(whose))], default=0)

    async def standing(self) -> list[Any]:
        """All that anybody of the tenant may."""
        return [
            await self.rows(f"SELECT * FROM {table} WHERE tenant_id = $1 ORDER BY 1, 2", self.tenant_id)
            for table in ("staff", "role", "member", "invitation", "client")
        ]


@pytest.fixture
async def house(shared: Places) -> AsyncIterator[House]:
    place = shared("identity")
    async with edge(place) as (client, shell):
        taking_in = desk()
        client._transport.app.state.service.shared = Shared(taking_in)  # type: ignore[attr-defined]
        yield House(place, client, shell, taking_in, await tenant_of(shell, "identity"))


async def test_an_owner_comes_with_the_onboarding_invites_a_colleague_and_takes_away_what_was_given(house: House) -> None:
    operator = Person(PLATFORM, role=PLATFORM_OPERATOR)
    new = {"slug": f"s-{uuid4().hex[:8]}", "name": "Shop", "currency": "GBP", "country": "GB", "admin_email": "Ada@shop.test"}
    keyed = {**operator.authorization, "Idempotency-Key": uuid4().hex}
    made = await house.client.post("/v1/tenants", json=new, headers=keyed)
    again = await house.client.post("/v1/tenants", json=new, headers=keyed)
    assert (made.status_code, again.json()["owner"]) == (202, made.json()["owner"]), "who lost the answer asks again"
    house.tenant_id = UUID(made.json()["tenant_id"])
    came = await house.accept(made.json()["owner"]["token"])
    assert (came.status_code, came.json()["roles"], came.json()["email"]) == (201, [OWNER], "Ada@shop.test")
    owner = holder(house.tenant_id, UUID(came.json()["id"]), OWNER)

    packing = await house.ask(owner, "POST", "roles", name="packing", permissions=["orders:read", "orders:write"])
    assert packing.status_code == 201
    asked = await house.ask(owner, "POST", "invitations", email="bob@shop.test", roles=["packing", "viewer"])
    twice = await house.ask(owner, "POST", "invitations", email="BOB@shop.test", roles=["viewer"])
    assert (asked.status_code, problem(twice)["code"]) == (201, "already-open")
    in_use = await house.ask(owner, "DELETE", "roles/packing")
    assert (problem(in_use)["code"], problem(in_use)["uses"]) == ("role-in-use", 1), "somebody is promised it"
    resent = await house.ask(owner, "POST", f"invitations/{asked.json()['id']}/resend")
    assert (await house.accept(asked.json()["token"])).status_code == 422, "it was sent anew since"
    bob = UUID((await house.accept(resent.json()["token"])).json()["id"])
    taken = await house.ask(owner, "POST", "invitations", email="Bob@Shop.test", roles=["viewer"])
    assert problem(taken)["code"] == "email-taken"

    async def ended(method: str, path: str, **body: Any) -> bool:
        before = await house.epoch_of(bob)
        answer = await house.ask(owner, method, path, **body)
        assert answer.status_code < 300, answer.text
        return await house.epoch_of(bob) > before

    wider = ["orders:read", "orders:write", "stock:read"]
    assert not await ended("PATCH", "roles/packing", permissions=wider), "what gives something ends nothing"
    assert await ended("PATCH", "roles/packing", permissions=["orders:read"])
    assert not await ended("PATCH", f"members/{bob}", roles=["packing", "viewer", "support"])
    assert await ended("PATCH", f"members/{bob}", roles=["viewer"])
    assert (await house.ask(owner, "DELETE", "roles/packing")).status_code == 204, "nobody has it any more"
    assert problem(await house.ask(owner, "PATCH", f"members/{bob}", roles=["packing"]))["code"] == "role-unknown"
    assert await ended("PATCH", f"members/{bob}", state="deactivated")
    assert await ended("DELETE", f"members/{bob}")
    assert (await house.ask(owner, "GET", f"members/{bob}")).status_code == 404
    [kept] = await house.rows("SELECT password, roles FROM member WHERE id = $1", bob)
    assert (kept["password"], kept["roles"]) == (None, "[]")
    listed = [each["id"] for each in (await house.ask(owner, "GET", "members")).json()["items"]]
    assert listed == [str(owner.subject)]
    assert (await house.ask(owner, "POST", "invitations", email="bob@shop.test", roles=["viewer"])).status_code == 201


async def test_a_token_is_told_apart_from_no_other_that_is_not_valid_and_lets_one_person_in_however_many_come(
    house: House,
) -> None:
    owner = await house.staff(OWNER)

    async def asked(email: str) -> dict[str, Any]:
        answer = await house.ask(owner, "POST", "invitations", email=email, roles=["viewer"])
        found: dict[str, Any] = answer.json()
        return found

    used, over, withdrawn, other = [await asked(f"{name}@shop.test") for name in ("used", "over", "withdrawn", "other")]
    came = await asyncio.gather(*(house.accept(used["token"], name=f"n{number}") for number in range(5)))
    assert sorted(each.status_code for each in came) == [201, 422, 422, 422, 422]
    await house.rows("UPDATE invitation SET expires_at = now() WHERE id = $1", UUID(over["id"]))
    assert (await house.ask(owner, "DELETE", f"invitations/{withdrawn['id']}")).status_code == 204
    foreign = other["token"].replace(house.tenant_id.hex, uuid4().hex)
    made_up = other["token"][:-1] + ("a" if other["token"][-1] != "a" else "b")
    told = set()
    for token in (used["token"], over["token"], withdrawn["token"], foreign, made_up, "inv_x", ""):
        refused = problem(await house.accept(token))
        told.add(tuple(sorted((name, str(value)) for name, value in refused.items() if name != "request_id")))
    assert len(told) == 1, told
    states = {each["email"]: each["state"] for each in (await house.ask(owner, "GET", "invitations")).json()["items"]}
    assert states["used@shop.test"] == "accepted"
    assert (states["over@shop.test"], states["withdrawn@shop.test"]) == ("expired", "revoked")
    anew = await asked("over@shop.test")
    assert (await house.accept(anew["token"])).status_code == 201
    [row] = await house.rows("SELECT password FROM member WHERE email = 'over@shop.test'")
    assert row["password"].startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert (await house.accept(other["token"], password="too short")).status_code == 422
    letters = await house.rows("SELECT convert_from(payload, 'UTF8') AS told FROM outbox_event WHERE topic = 'invitation.v1'")
    assert letters
    assert not [each for each in letters if "inv_" in each["told"] or "@" in each["told"]]


async def test_the_platform_asks_an_owner_in_where_none_can_and_says_to_which_tenant(house: House) -> None:
    operator = Person(PLATFORM, role=PLATFORM_OPERATOR)
    lost: dict[str, Any] = {"email": "ada@shop.test", "roles": [OWNER]}
    nowhere = await house.ask(operator, "POST", "invitations", **lost)
    assert (nowhere.status_code, problem(nowhere)["code"]) == (422, "tenant-id-required")
    unknown = await house.ask(operator, "POST", "invitations", **lost, tenant_id=str(uuid4()))
    assert unknown.status_code == 404
    asked = await house.ask(operator, "POST", "invitations", **lost, tenant_id=str(house.tenant_id))
    came = await house.accept(asked.json()["token"])
    owner = holder(house.tenant_id, UUID(came.json()["id"]), OWNER)
    assert (await house.ask(owner, "GET", "members")).status_code == 200
    elsewhere = await house.ask(owner, "POST", "invitations", email="b@shop.test", roles=[OWNER], tenant_id=str(uuid4()))
    assert (elsewhere.status_code, problem(elsewhere)["code"]) == (422, "tenant-id-not-allowed")


async def test_two_owners_who_demote_or_leave_at_the_same_moment_never_leave_a_tenant_without_one(house: House) -> None:
    for number in range(12):
        house.tenant_id = await tenant_of(house.shell, "identity")
        one, two = await house.staff(OWNER), await house.staff(OWNER)
        if number % 2:
            asked = [
                house.ask(who, "PATCH", f"members/{whom.subject}", roles=["viewer"]) for who, whom in ((one, two), (two, one))
            ]
        else:
            asked = [house.ask(who, "DELETE", f"members/{who.subject}") for who in (one, two)]
        answers = await asyncio.gather(*asked)
        assert sorted(each.status_code < 300 for each in answers) == [False, True], [each.text for each in answers]
        [left] = await house.rows(
            "SELECT count(*) FROM member WHERE tenant_id = $1 AND state = 'active' AND roles ? 'owner'", house.tenant_id
        )
        [counted] = await house.rows("SELECT owners FROM staff WHERE tenant_id = $1", house.tenant_id)
        assert (left["count"], counted["owners"]) == (1, 1)


@pytest.mark.parametrize("role", BUILT_IN)
async def test_nobody_gets_a_permission_that_their_role_lacks_by_any_way_there_is_to_give_one(house: House, role: str) -> None:
    held = BUILT_IN[role] | MANAGING
    own = await house.role("own", held)
    member = await house.staff(own)
    climber = Person(house.tenant_id, subject=member.subject, role=MEMBER, scope=sorted(PERMISSIONS))
    owner, colleague = await house.staff(OWNER), await house.staff("fulfilment")
    promised, _ = await invited(house.shell, house.desk, house.tenant_id, "x@shop.test", OWNER)
    lacking = sorted(PERMISSIONS - held)
    known = {permission: f"r{number}" for number, permission in enumerate(lacking) if permission in BUILT_IN[OWNER]}
    clients = {}
    for permission, name in known.items():
        await house.role(name, frozenset({permission}))
        clients[permission], _ = await client_of(house.shell, house.tenant_id, [permission])
    before = await house.standing()
    tries: list[tuple[str, str, dict[str, Any]]] = []
    for permission in lacking:
        tries += [("POST", "roles", {"name": "new", "permissions": [permission]})]
        tries += [("PATCH", f"roles/{own}", {"permissions": [*sorted(held), permission]})]
        tries += [("POST", "clients", {"name": "n", "scopes": [permission]})]
    for permission, name in known.items():
        tries += [("POST", "invitations", {"email": "new@shop.test", "roles": [name]})]
        tries += [("PATCH", f"members/{who}", {"roles": [own, name]}) for who in (climber.subject, colleague.subject)]
        tries += [("PATCH", f"roles/{name}", {"description": "mine"}), ("POST", f"clients/{clients[permission]}/secrets", {})]
    if lacking != sorted(PERMISSIONS - BUILT_IN[OWNER]):
        tries += [("PATCH", f"members/{owner.subject}", {"state": "deactivated"}), ("DELETE", f"members/{owner.subject}", {})]
        tries += [("POST", f"invitations/{promised}/resend", {}), ("DELETE", f"invitations/{promised}", {})]
    for method, path, body in tries:
        answer = await house.ask(climber, method, path, **body)
        assert (answer.status_code, problem(answer)["code"]) == (422, "scope-not-grantable"), (method, path, body, answer.text)
    assert await house.standing() == before
    narrowed = Person(house.tenant_id, subject=owner.subject, role=MEMBER, scope=sorted(MANAGING))
    for permission in sorted(held - MANAGING):
        answer = await house.ask(narrowed, "POST", "roles", name="new", permissions=[permission])
        assert problem(answer)["code"] == "scope-not-grantable", "a token that says less grants less, whoever has it"
    assert (await house.ask(climber, "POST", "roles", name="new", permissions=sorted(held))).status_code == 201


async def test_a_role_that_is_edited_while_it_is_given_ends_the_tokens_of_all_who_hold_it(house: House) -> None:
    owner = await house.staff(OWNER)
    await house.role("own", frozenset({"orders:read", "orders:write"}))
    members = [await house.staff("viewer") for _ in range(8)]
    given = [house.ask(owner, "PATCH", f"members/{each.subject}", roles=["own"]) for each in members]
    edited = house.ask(owner, "PATCH", "roles/own", permissions=["orders:read"])
    answers = await asyncio.gather(*given[:4], edited, *given[4:])
    assert {each.status_code for each in answers} <= {200, 409}
    statuses = [each.status_code for each in answers]
    while statuses[4] == 409:
        assert problem(answers[4])["code"] == "staff-changed"
        answers[4] = await house.ask(owner, "PATCH", "roles/own", permissions=["orders:read"])
        statuses[4] = answers[4].status_code
    for member in members:
        assert await house.epoch_of(member.subject) > 0, "given orders:write for a moment, or taken viewer's rights"


async def test_a_machine_with_members_to_manage_is_held_to_its_own_scopes_too(house: House) -> None:
    small, _ = await client_of(house.shell, house.tenant_id, ["members:manage", "orders:read"])
    machine = Person(house.tenant_id, role=CLIENT, scope=sorted(PERMISSIONS), claims={"client_id": small})
    refused = await house.ask(machine, "POST", "invitations", email="a@shop.test", roles=["viewer"])
    assert problem(refused)["code"] == "scope-not-grantable"
    await house.role("reader", frozenset({"orders:read"}))
    assert (await house.ask(machine, "POST", "invitations", email="a@shop.test", roles=["reader"])).status_code == 201
