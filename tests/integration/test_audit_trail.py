"""The audit trail: written with what it tells of or not at all, by nobody but its one function, and whole under any crowd."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from deploy.cli.audit.chains import Chain, canonical, read
from deploy.cli.audit.run import as_json, report
from deploy.cli.errors import ExitCode
from libs.common.auth import CLIENT
from libs.common.clock import PLATFORM
from libs.common.messaging.audit import Act, append, forget
from libs.common.messaging.shell import Shell
from libs.common.origin import Origin
from services.checkout import repository
from services.checkout.domain.shipping import ShippingKind, ShippingMethod, ShippingRate
from services.checkout.handlers.quoting import DeleteShippingMethod, PutShippingMethod
from tests.shared.callers import Person, decided, edge, message, onboard, shell_of
from tests.shared.places import MIGRATED, Place, Places

WRITERS = 50
SOMEBODY = Origin(actor="somebody", client_id="c", request_id="r")


def _acts(tenant_id: UUID, *names: str) -> list[Act]:
    return [Act(tenant_id=tenant_id, origin=SOMEBODY, action=name, kind="thing", object_id=name) for name in names]


def _offer(tenant_id: UUID, code: str, name: str = "Post") -> Any:
    rates = (ShippingRate(countries=None, up_to=None, amount_minor=1),)
    command = PutShippingMethod(code=code, name=name, kind=ShippingKind.WEIGHT, currency="GBP", rates=rates)
    return _told(command, tenant_id)


async def _chains(place: Place, tenant_id: UUID | None = None, kept: Any = None) -> list[Chain]:
    owner = await asyncpg.connect(place.url("owner"))
    try:
        return await read(owner, place.service, tenant_id, kept or {})
    finally:
        await owner.close()


async def _entries(shell: Shell, tenant_id: UUID) -> Sequence[asyncpg.Record]:
    async with shell.database.transaction([tenant_id]) as connection:
        return list(await connection.fetch("SELECT * FROM audit_entry WHERE tenant_id = $1 ORDER BY number", tenant_id))


@pytest.fixture
async def chain(empty: Places) -> AsyncIterator[tuple[Place, UUID, asyncpg.Connection]]:
    """A chain of nine entries among others, and the server's master."""
    place, tenant_id = empty("cart"), uuid4()
    async with shell_of(place, size=1) as shell:
        for names in (("a",), ("b", "c", "d"), ("e", "f"), ("g", "h", "i")):
            async with shell.database.transaction([tenant_id, PLATFORM]) as connection:
                await append(connection, [*_acts(tenant_id, *names), *_acts(PLATFORM, *names)])
    admin = await place.as_admin()
    await admin.execute("SET session_replication_role = replica")  # past the triggers: whoever rules the server can do that
    yield place, tenant_id, admin
    await admin.close()


BENT = {
    "one byte of a text": ("UPDATE audit_entry SET reason = 'x' WHERE number = 4 AND {t}", 4, "does not say"),
    "who": ("UPDATE audit_entry SET actor = 'somebody else' WHERE number = 1 AND {t}", 1, "does not say"),
    "when": ("UPDATE audit_entry SET at = at + interval '1 microsecond' WHERE number = 9 AND {t}", 9, "does not say"),
    "one bit of a digest": (
        "UPDATE audit_entry SET digest = set_bit(digest, 5, 1 - get_bit(digest, 5)) WHERE number = 6 AND {t}",
        6,
        "does not say",
    ),
    "a row in the middle is gone": ("DELETE FROM audit_entry WHERE number = 5 AND {t}", 5, "is missing"),
    "the first is gone": ("DELETE FROM audit_entry WHERE number = 1 AND {t}", 1, "is missing"),
    "the last is gone": ("DELETE FROM audit_entry WHERE number = 9 AND {t}", 9, "is missing"),
    "all are gone": ("DELETE FROM audit_entry WHERE {t}", 1, "is missing"),
    "one is put in": (
        """INSERT INTO audit_entry SELECT tenant_id, 10, at, actor, client_id, session_id, address, request_id, by_platform,
            action, object_kind, object_id, reason, state_before, state_after, digest, digest
            FROM audit_entry WHERE number = 9 AND {t}""",
        10,
        "does not say",
    ),
    "two change places": (
        """UPDATE audit_entry SET number = -number WHERE number IN (3, 7) AND {t};
           UPDATE audit_entry SET number = 10 + number WHERE number IN (-3, -7) AND {t}""",
        3,
        "does not say",
    ),
    "the head is set back": ("UPDATE audit_head SET number = 8 WHERE {t}", 9, "was added past the head"),
    "the head is gone": ("DELETE FROM audit_head WHERE {t}", 1, "was added past the head"),
}


@pytest.mark.parametrize(("statement", "number", "why"), BENT.values(), ids=BENT)
async def test_whoever_rules_the_server_bends_nothing_unseen_and_the_first_that_is_bent_is_named(
    chain: tuple[Place, UUID, asyncpg.Connection],
    capsys: pytest.CaptureFixture[str],
    statement: str,
    number: int,
    why: str,
) -> None:
    place, tenant_id, admin = chain
    assert [(each.number, each.broken) for each in await _chains(place)] == [(9, None)] * 2
    await admin.execute("ALTER TABLE audit_entry DROP CONSTRAINT audit_entry_number")
    await admin.execute(statement.format(t=f"tenant_id = '{tenant_id}'"))
    found = {each.tenant_id: each.broken for each in await _chains(place)}
    assert found[PLATFORM] is None, "another chain is none of its concern"
    broken = found[tenant_id]
    assert broken is not None
    assert broken[0] == number
    assert why in broken[1]
    assert [each.tenant_id for each in await _chains(place, tenant_id)] == [tenant_id]
    assert report(await _chains(place), json=False) == ExitCode.NOT_SO
    assert capsys.readouterr().out == f"cart, tenant {tenant_id}: entry {number} {broken[1]}\n"
    assert report([each for each in await _chains(place) if each.broken is None], json=False) == ExitCode.DONE


async def test_a_chain_written_anew_from_end_to_end_is_told_by_what_was_kept_elsewhere(
    chain: tuple[Place, UUID, asyncpg.Connection],
) -> None:
    place, tenant_id, admin = chain
    kept = {UUID(each["tenant_id"]): {each["entries"]: each["digest"]} for each in as_json(await _chains(place))["chains"]}
    await admin.execute("UPDATE audit_entry SET actor = 'nobody' WHERE number = 2 AND tenant_id = $1", tenant_id)
    previous = bytes(32)
    for row in await admin.fetch("SELECT * FROM audit_entry WHERE tenant_id = $1 ORDER BY number", tenant_id):
        digest = hashlib.sha256(canonical({**row, "previous": previous})).digest()
        await admin.execute(
            "UPDATE audit_entry SET previous = $3, digest = $4 WHERE tenant_id = $1 AND number = $2",
            *(tenant_id, row["number"], previous, digest),
        )
        previous = digest
    await admin.execute("UPDATE audit_head SET digest = $2 WHERE tenant_id = $1", tenant_id, previous)
    assert [each.broken for each in await _chains(place)] == [None, None], "it is a chain like any other"
    found = {each.tenant_id: each.broken for each in await _chains(place, kept=kept)}
    assert found[PLATFORM] is None
    assert found[tenant_id] == (9, "is not the one that was kept elsewhere: the chain was written anew")
    await admin.execute("DELETE FROM audit_entry; DELETE FROM audit_head")
    assert {each.broken for each in await _chains(place, kept=kept)} == {(1, "is missing")}


@pytest.mark.parametrize("service", MIGRATED)
async def test_no_role_of_a_service_changes_what_was_told_and_none_but_the_function_adds_to_it(
    shared: Places, service: str
) -> None:
    place, tenant_id, stranger = shared(service), uuid4(), uuid4()
    async with shell_of(place, size=1) as shell:
        async with shell.database.transaction([tenant_id]) as connection:
            await append(connection, _acts(tenant_id, "a", "b"))
        for of_another in (tenant_id, uuid4()):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match=r"row-level security|not in the name of"):
                async with shell.database.transaction([stranger]) as connection:
                    await append(connection, _acts(of_another, "c"))
        assert [row["object_id"] for row in await _entries(shell, tenant_id)] == ["a", "b"]
        async with shell.database.transaction([stranger]) as connection:
            assert await connection.fetchval("SELECT count(*) FROM audit_entry") == 0
    changes = [
        "UPDATE audit_entry SET reason = ''",
        "DELETE FROM audit_entry",
        "TRUNCATE audit_entry",
        "DELETE FROM audit_head",
        "TRUNCATE audit_head",
    ]
    for role in ("app", "relay", "owner"):
        connection = await asyncpg.connect(place.url(role))
        in_its_name = f"SELECT set_config('cartwright.tenant_ids', '{tenant_id}', true)"
        more = [] if role == "owner" else ["INSERT INTO audit_entry SELECT", "UPDATE audit_head SET number = 0"]
        refusal: Any = asyncpg.IntegrityConstraintViolationError if role == "owner" else asyncpg.InsufficientPrivilegeError
        for statement in (*changes, *more):
            await connection.execute(f"BEGIN; {in_its_name}")
            with pytest.raises(refusal):
                await connection.execute(statement)
            await connection.execute("ROLLBACK")
        await connection.close()
    [whole] = await _chains(place, tenant_id)
    assert (whole.number, whole.broken) == (2, None)


async def test_a_crowd_of_writers_of_two_tenants_makes_two_whole_chains_and_no_deadlock(shared: Places) -> None:
    place = shared("checkout")
    async with shell_of(place, size=WRITERS) as shell:
        tenants = [await onboard(shell), await onboard(shell)]

        async def write(number: int) -> None:
            # Every other one in another order: the heads are locked in their own.
            ordered = tenants if number % 2 else tenants[::-1]
            offers = [_offer(each, f"{number}-{place}") for place in range(3) for each in ordered]
            await decided(lambda: shell.execute_many(offers))

        await asyncio.gather(*map(write, range(WRITERS)))
        for tenant_id in tenants:
            [whole] = await _chains(place, tenant_id)
            assert (whole.number, whole.broken) == (3 * WRITERS, None)
            told = [row["object_id"] for row in await _entries(shell, tenant_id)]
            assert sorted(told) == sorted(f"{number}-{place}" for number in range(WRITERS) for place in range(3))
            writers = [told[start : start + 3] for start in range(0, len(told), 3)]
            assert all(each == [f"{each[0].split('-')[0]}-{place}" for place in range(3)] for each in writers), "in its order"


async def test_an_act_and_its_entry_stand_together_or_not_at_all_and_a_refused_one_leaves_no_gap(shared: Places) -> None:
    place = shared("checkout")
    async with shell_of(place) as shell:
        tenant_id = await onboard(shell)
        await shell.execute(_offer(tenant_id, "before"))
        admin = await place.as_admin()
        # The database dies under the transaction at each of its last steps: while it tells, and once it has told.
        for when, table in (("BEFORE", "audit_entry"), ("AFTER", "audit_entry"), ("AFTER", "audit_head")):
            await admin.execute(
                "CREATE OR REPLACE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$"
            )
            await admin.execute(f"CREATE TRIGGER dies {when} INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION die()")
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
                await shell.execute(_offer(tenant_id, "never"))
            await admin.execute(f"DROP TRIGGER dies ON {table}")
        await admin.execute("DROP FUNCTION die()")
        await admin.close()
        with pytest.raises(Exception, match="shipping"):
            await shell.execute(_told(DeleteShippingMethod(code="never"), tenant_id))
        await shell.execute(_offer(tenant_id, "after"))
        async with shell.database.transaction([tenant_id]) as connection:
            found = await repository.SHIPPING_METHODS.load(connection, [(tenant_id, "never")], lock=False)
        assert found == []
        assert [(row["number"], row["object_id"]) for row in await _entries(shell, tenant_id)] == [(1, "before"), (2, "after")]


def _told(command: Any, tenant_id: UUID) -> Any:
    told = message(command, tenant_id)
    told.origin = SOMEBODY
    return told


async def test_the_digests_of_states_are_keyed_by_the_tenant_and_join_one_change_to_the_next(shared: Places) -> None:
    place = shared("checkout")
    async with shell_of(place) as shell:
        tenants = [await onboard(shell), await onboard(shell)]
        for tenant_id in tenants:
            for name in ("slow", "quick"):
                method: ShippingMethod = await shell.execute(_offer(tenant_id, "post", name))
        first, second = [await _entries(shell, each) for each in tenants]
        assert first[0]["state_before"] is None
        assert first[0]["state_after"] == first[1]["state_before"]
        assert first[1]["state_after"] != second[1]["state_after"], "the same state of another tenant"
        admin = await place.as_admin()
        pads = await admin.fetchrow("SELECT inner_key, outer_key FROM audit_head WHERE tenant_id = $1", tenants[1])
        await admin.close()
        key = bytes(each ^ 0x36 for each in pads["inner_key"])
        assert key == bytes(each ^ 0x5C for each in pads["outer_key"])
        state = repository.SHIPPING_METHODS.canonical(method)
        assert second[1]["state_after"] == hmac.digest(key, state, "sha256"), "HMAC-SHA-256, as others compute it"

        async with shell.database.transaction([tenants[0]]) as connection:
            for tenant_id in tenants:
                await forget(connection, tenant_id)
        admin = await place.as_admin()
        keys = "SELECT inner_key FROM audit_head WHERE tenant_id = $1"
        kept, gone = [await admin.fetchval(keys, tenant_id) for tenant_id in tenants[::-1]]
        await admin.close()
        assert kept == pads["inner_key"], "nobody forgets for a tenant that is not named"
        assert gone != kept
        await shell.execute(_offer(tenants[0], "post", "quick again"))
        [whole] = await _chains(place, tenants[0])
        assert (whole.number, whole.broken) == (3, None)
        last = (await _entries(shell, tenants[0]))[2]
        assert last["state_before"] != first[1]["state_after"], "the same state, and nobody can tell"


async def test_whose_act_it_was_is_read_by_its_tenant_and_the_platform_page_by_page_and_by_nobody_else(shared: Places) -> None:
    async with edge(shared("checkout")) as (client, shell):
        staff, other = Person(await onboard(shell), role=CLIENT), Person(await onboard(shell), role=CLIENT)
        session, path = {"sid": str(uuid4())}, "/v1/audit-entries"
        colleague = Person(staff.tenant_id, role=CLIENT, claims=session)
        for number, who in enumerate((staff, colleague, staff)):
            headers = {**who.authorization, "X-Request-Id": f"r{number}"}
            put = await client.put("/v1/tax-rates/GB/food", json={"name": "VAT", "rate": f"{number}"}, headers=headers)
            assert put.status_code == 200

        async def listed(who: Person, **query: Any) -> Any:
            answer = await client.get(path, params=query, headers=who.authorization)
            assert answer.status_code == 200, answer.text
            return answer.json()

        page = await listed(staff, limit=2)
        assert [each["request_id"] for each in page["items"]] == ["r2", "r1"]
        rest = await listed(staff, limit=2, cursor=page["next_cursor"])
        assert [each["request_id"] for each in rest["items"]] == ["r0"]
        assert rest["next_cursor"] is None
        [theirs] = (await listed(staff, actor=str(colleague.subject)))["items"]
        assert (theirs["session_id"], theirs["client_id"], theirs["action"]) == (session["sid"], "test", "put-tax-rate")
        assert (theirs["object_kind"], theirs["object_id"], theirs["address"]) == ("tax-table", "GB", "127.0.0.0/24")
        for query, expected in (
            ({"at_or_after": theirs["at"]}, ["r2", "r1"]),
            ({"before": theirs["at"]}, ["r0"]),
            ({"action": "put-tax-rate", "object_kind": "tax-table", "object_id": "GB"}, ["r2", "r1", "r0"]),
            ({"action": "nothing"}, []),
        ):
            assert [each["request_id"] for each in (await listed(staff, **query))["items"]] == expected
        assert (await listed(other))["items"] == []
        operator = Person(PLATFORM, role="platform-operator")
        assert len((await listed(operator, tenant_id=str(staff.tenant_id)))["items"]) == 3
        refused = {
            403: await client.get(path, headers=Person(staff.tenant_id).authorization),
            401: await client.get(path),
            422: await client.get(path, params={"tenant_id": str(other.tenant_id)}, headers=staff.authorization),
            400: await client.get(path, params={"cursor": "x"}, headers=staff.authorization),
        }
        assert {status: answer.status_code for status, answer in refused.items()} == {status: status for status in refused}
