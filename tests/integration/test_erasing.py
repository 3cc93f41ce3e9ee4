"""A tenant is erased out of each service: everything of its own, nothing of others, once nothing is under way; and for good."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from deploy.composition import parts_of
from libs.common.auth import CLIENT, PLATFORM_OPERATOR
from libs.common.clock import PLATFORM
from libs.common.database import write
from libs.common.errors import ErasedError, NotYetError
from libs.common.http.routes import GuardedRoute
from libs.common.messaging.shell import Failure
from libs.common.messaging.sources import Source, Sources
from libs.common.messaging.timers import fire_due
from services import SERVICES
from services.checkout.jobs.clockwork import COMMANDS
from services.identity.domain.tenant import PROVISIONERS
from services.identity.handlers import EraseTenant, OnboardTenant
from services.payments.gateway.webhooks import read_notice
from services.payments.repository.provider import connections, webhooks
from tests.integration.leavers import STAYING, UNDER_WAY, KilledError, Leaver, Mortal, eraser_on, leaving
from tests.integration.victims import Victim
from tests.shared.callers import Person, edge, message, problem
from tests.shared.events import tenant_updated
from tests.shared.places import Places
from tests.shared.victims import tenant_of

NOTICE = {"id": "evt_1", "type": "customer.created", "livemode": False, "created": 1, "data": {"object": {"id": "cus_1"}}}
LAST = 60
"""More than there are steps, of which each is died at."""


@pytest.fixture(params=SERVICES)
async def leaver(request: pytest.FixtureRequest, empty: Places) -> AsyncIterator[Leaver]:
    async with leaving(empty(request.param)) as leaver:
        yield leaver


async def _exported(victim: Victim) -> str:
    """What the last line of an export says that all before it comes to."""
    path, operator = f"/v1/{victim.place.service}-exports/{victim.tenant_id}", Person(PLATFORM, role=PLATFORM_OPERATOR)
    answer = await victim.client.get(path, headers=operator.authorization)
    *lines, last = answer.content.splitlines(keepends=True)
    assert lines
    digest: str = orjson.loads(last)["manifest"]["sha256"]
    assert digest == hashlib.sha256(b"".join(lines)).hexdigest()
    return digest


async def _erased(leaver: Leaver) -> None:
    """Look until it is gone, as a worker does, while a relay publishes."""
    async with asyncio.timeout(60):
        while (await leaver.counts())["erasure"] == 0 or await leaver.eraser.advance(leaver.victim.tenant_id) is not None:
            await leaver.eraser.look()
            await leaver.relayed()


async def test_nothing_is_left_of_it_but_that_it_was_there_and_its_neighbour_has_all_it_had(leaver: Leaver) -> None:
    victim = leaver.victim
    neighbour = await tenant_of(victim.shell, victim.place.service)
    theirs = await leaver.counts(neighbour)
    assert sum(theirs.values()) > 0
    before = await leaver.counts()
    assert {table for table, count in before.items() if not count} <= STAYING, "a table that nobody fills proves nothing"
    await leaver.eraser.look()
    assert await leaver.counts() == before, "nobody said that it is to be erased"
    await leaver.ends()
    exported = await _exported(victim)

    await leaver.is_to_leave()
    await _erased(leaver)

    after = await leaver.counts()
    words = await leaver.words()
    assert {table for table, count in after.items() if count} <= leaver.left | {"outbox_event"}
    assert after["outbox_event"] == len(words) == 1, "what is on its way says that it is gone, and nothing else does"
    assert await leaver.counts(neighbour) == theirs
    admin = await victim.place.as_admin()
    row = await admin.fetchrow("SELECT row_count, sha256, erased_at FROM erasure WHERE tenant_id = $1", victim.tenant_id)
    await admin.close()
    assert (row["sha256"], row["erased_at"] is not None) == (exported, True), "what was deleted is what was taken away"
    [word] = words
    if victim.place.service == "identity":
        digests = {"identity": exported} | dict.fromkeys(SERVICES[1:], "0" * 64)
        told = "".join(f"{service} {digests[service]}\n" for service in SERVICES)
        assert (word["status"], word["slug"], word["settings"], word["erased_by"]) == ("erased", "", {}, [])
        answer = await victim.client.get(
            f"/v1/tenants/{victim.tenant_id}", headers=Person(PLATFORM, role=PLATFORM_OPERATOR).authorization
        )
        shown = answer.json()
        assert (shown["status"], shown["slug"], shown["name"]) == ("erased", "", "")
        assert shown["export_sha256"] == hashlib.sha256(told.encode()).hexdigest()
        assert shown["erased_at"]
    else:
        assert (word["service"], word["sha256"], word["row_count"]) == (victim.place.service, exported, row["row_count"])


async def test_it_waits_for_what_is_under_way_and_says_for_what(leaver: Leaver) -> None:
    service, tenant_id = leaver.victim.place.service, leaver.victim.tenant_id
    await leaver.is_to_leave(unless=PROVISIONERS)
    steps = UNDER_WAY.get(service, ())
    assert [what for what, *_ in steps] == [each.table for each in leaver.holdings.under_way if each.table != "tenant"]
    await leaver.as_admin(*(begins for _, begins, _ in steps if begins))
    before = await leaver.counts()
    for what, _, ends in steps:
        assert await leaver.eraser.advance(tenant_id) == what
        assert await leaver.counts() == before
        await leaver.as_admin(ends)
    for other in PROVISIONERS if service == "identity" else ():
        assert await leaver.eraser.advance(tenant_id) == "tenant", "the others have not said their word"
        await leaver.word_of(other)
    assert await leaver.eraser.advance(tenant_id) == "outbox"
    assert {**await leaver.counts(), "outbox_event": 0} == {**before, "erasure": 1, "outbox_event": 0}, "sealed, and all there"


async def test_whoever_is_killed_at_whatever_step_the_next_one_ends_it_and_it_is_said_once(leaver: Leaver) -> None:
    await leaver.ends()
    exported = await _exported(leaver.victim)
    await leaver.is_to_leave()
    await leaver.relayed()
    for fatal in range(1, LAST):
        mortal = eraser_on(leaver.victim.place, Mortal(leaver.victim.shell.database.pool, fatal))
        with suppress(KilledError):
            await mortal.advance(leaver.victim.tenant_id)
            await leaver.relayed()
    words = await leaver.words()
    assert {table for table, count in (await leaver.counts()).items() if count} <= leaver.left | {"outbox_event"}
    assert [word.get("sha256", word.get("status")) for word in words] in ([exported], ["erased"])
    assert await leaver.eraser.advance(leaver.victim.tenant_id) is None


async def test_of_many_who_do_it_at_once_one_says_so(leaver: Leaver) -> None:
    await leaver.ends()
    await leaver.is_to_leave()
    await leaver.relayed()
    outcomes = await asyncio.gather(*(leaver.eraser.advance(leaver.victim.tenant_id) for _ in range(4)))
    assert {*outcomes} <= {None, "outbox"}
    await _erased(leaver)
    assert len(await leaver.words()) == 1


async def test_of_a_tenant_that_lives_nobody_erases_anything(leaver: Leaver) -> None:
    tenant_id, tables = leaver.victim.tenant_id, [*leaver.holdings.erased, "inbox_parked", "idempotency_key"]

    async def refused(sql: str, *arguments: Any) -> None:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with leaver.victim.shell.database.transaction([tenant_id]) as connection:
                await connection.fetch(sql, *arguments)

    before = await leaver.counts()
    await refused("SELECT erasure_seal($1)", tenant_id)
    await refused("INSERT INTO erasure (tenant_id, row_count, sha256) VALUES ($1, 0, '')", tenant_id)
    for table in tables:
        await refused("SELECT erase_rows($1, $2, 1000)", tenant_id, table)
    await leaver.ends()
    await leaver.is_to_leave()
    assert await leaver.eraser.advance(tenant_id) == "outbox"
    for table in tables:  # sealed; but nobody has said yet what there was
        await refused("SELECT erase_rows($1, $2, 1000)", tenant_id, table)
    await refused("UPDATE erasure SET sha256 = ''")
    await refused("DELETE FROM erasure")
    async with leaver.victim.shell.database.transaction([tenant_id]) as connection:
        await connection.fetchval("SELECT erasure_tell($1, 0, '')", tenant_id)
    for table in ("audit_entry", "audit_head", "erasure", "inbox_position"):
        await refused("SELECT erase_rows($1, $2, 1000)", tenant_id, table)
    assert {**await leaver.counts(), "outbox_event": 0} == {**before, "erasure": 1, "outbox_event": 0} | _epoch(before)


async def test_a_database_restored_to_before_an_erasure_erases_again_by_the_last_word_there_was_of_it(leaver: Leaver) -> None:
    victim, tenant_id = leaver.victim, leaver.victim.tenant_id
    neighbour = await tenant_of(victim.shell, victim.place.service)
    theirs = await leaver.counts(neighbour)
    await leaver.ends()
    is_identity = victim.place.service == "identity"
    if is_identity:
        with pytest.raises(NotYetError):  # of a service that has heard what identity does not know any more
            await leaver.word_of("cart")
    last = tenant_updated(tenant_id, version=12, status="erased", slug="", currency="XXX", country="")
    await victim.shell.execute(message(last, tenant_id))  # all that a compacted topic still has
    for service in PROVISIONERS if is_identity else ():
        await leaver.word_of(service)
    await _erased(leaver)
    assert {table for table, count in (await leaver.counts()).items() if count} <= leaver.left | {"outbox_event"}
    assert await leaver.counts(neighbour) == theirs
    word = (await leaver.words())[-1]
    assert not is_identity or (word["status"], word["version"] > 12) == ("erased", True), "what is said now is news to everybody"


def _epoch(before: dict[str, int]) -> dict[str, int]:
    """To be erased ends its tokens, which identity notes."""
    return {"epoch": before["epoch"] + 1} if "epoch" in before else {}


async def test_what_comes_afterwards_makes_nothing_of_it_again(leaver: Leaver) -> None:
    victim, tenant_id = leaver.victim, leaver.victim.tenant_id
    await leaver.ends()
    await leaver.is_to_leave()
    await _erased(leaver)
    after = await leaver.counts()
    path, operator = f"/v1/{victim.place.service}-exports/{tenant_id}", Person(PLATFORM, role=PLATFORM_OPERATOR)
    export = await victim.client.get(path, headers=operator.authorization)
    assert (export.status_code, problem(export)["code"]) == (403, "tenant-erased"), "half of one looks like a whole one"
    again: Any = tenant_updated(tenant_id, version=99)
    if victim.place.service == "identity":
        again = OnboardTenant(slug="again", name="n", currency="GBP", country="GB", admin_email="a@shop.test")
        await victim.shell.execute(message(EraseTenant(), tenant_id))  # said again, it changes nothing
    with pytest.raises(ErasedError):
        await victim.shell.execute(message(again, tenant_id))
    [answer] = await victim.shell.execute_each([message(again, tenant_id)])
    assert isinstance(answer, Failure)
    standings = victim.client._transport.app.state.service.standings  # type: ignore[attr-defined]
    standings.learn(tenant_id, 99, "erased")
    victim.ids |= {"parked_id": "catalog.v1:0:1", "id": "catalog.v1:0:1"}
    for operation in victim.operations():
        if isinstance(operation.route, GuardedRoute) and not operation.route.platform_only:
            answer = await victim.ask(operation, Person(tenant_id, role=CLIENT))
            assert (answer.status_code, problem(answer)["code"]) == (403, "tenant-erased"), operation
    assert await leaver.counts() == after


async def test_who_began_before_it_was_sealed_is_waited_for(empty: Places) -> None:
    place = empty("cart")
    async with edge(place) as (_, shell):
        tenant_id = await tenant_of(shell, "cart")
        eraser = parts_of("cart").eraser(shell)
        await shell.execute(message(tenant_updated(tenant_id, version=9, status="erasing", erased_by=["checkout"]), tenant_id))
        relay = await place.as_admin()
        await relay.execute("UPDATE outbox_cursor SET lo = pg_current_snapshot()")
        async with shell.database.transaction([tenant_id]) as early:
            assert await shell.gone(early, [tenant_id]) == {}  # it writes nothing yet, and so has no number
            erasing = asyncio.create_task(eraser.advance(tenant_id))
            while not await relay.fetchval("SELECT count(*) FROM erasure"):
                await asyncio.sleep(0.05)
            assert not (await asyncio.wait([erasing], timeout=1))[0], "somebody may still make something of it"
            key = "INSERT INTO idempotency_key (tenant_id, subject, operation, key, fingerprint) VALUES ($1, '', '', '', '')"
            await early.execute(key, tenant_id)
        assert await erasing is None
        assert await relay.fetchval("SELECT count(*) FROM idempotency_key") == 0
        assert await relay.fetchval("SELECT erased_at IS NOT NULL FROM erasure")
        await relay.close()


@pytest.mark.parametrize("service", PROVISIONERS)
async def test_a_service_waits_for_its_turn_and_keeps_nothing_of_one_that_it_hears_of_when_it_is_gone(
    service: str, empty: Places
) -> None:
    async with edge(empty(service)) as (_, shell):
        tenant_id, gone = await tenant_of(shell, service), uuid4()
        eraser = parts_of(service).eraser(shell)

        async def is_told(version: int, **turns: list[str]) -> None:
            await shell.execute(message(tenant_updated(tenant_id, version=version, status="erasing", **turns), tenant_id))
            await eraser.look()

        async def is_sealed(whose: UUID) -> bool:
            async with shell.database.transaction([whose]) as connection:
                return whose in await shell.gone(connection, [whose])

        await is_told(2)
        assert not await is_sealed(tenant_id), "payments may still ask checkout for an order, and that the others for anything"
        await is_told(3, settled_by=["payments"])
        assert await is_sealed(tenant_id) is (service == "checkout")
        if service != "checkout":
            await is_told(4, settled_by=["payments"], erased_by=["checkout"])
        assert await is_sealed(tenant_id)
        left = tenant_updated(gone, version=7, status="erased", slug="", currency="XXX", country="")
        await shell.execute(message(left, gone))
        async with shell.database.transaction([gone]) as connection:
            assert await shell.unknown(connection, [gone]) == {gone}


async def test_past_the_shell_nothing_is_made_of_a_sealed_tenant_either(empty: Places) -> None:
    async with edge(empty("payments")) as (_, shell):
        tenant_id = await tenant_of(shell, "payments")
        notice = read_notice(orjson.dumps(NOTICE))
        async with shell.database.transaction([tenant_id]) as connection:
            assert await webhooks.store(connection, tenant_id, notice)
        await shell.execute(message(tenant_updated(tenant_id, version=9, status="erasing", erased_by=["checkout"]), tenant_id))
        async with shell.database.transaction([tenant_id]) as connection:
            await connection.execute("SELECT erasure_seal($1)", tenant_id)
            assert not await webhooks.store(connection, tenant_id, replace(notice, id="evt_2"))
            await connections.begin(connection, tenant_id, bytes(32), uuid4(), timedelta(hours=1))
            source = Source(tenant_id, "/shop/catalogue")
            await write(connection, [Sources("payments").pause([source])])
            for table in ("account_connection", "inbox_source"):
                assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0, table


async def test_a_timer_of_a_sealed_tenant_fires_for_nothing_and_is_gone(empty: Places) -> None:
    async with edge(empty("checkout")) as (_, shell):
        tenant_id = await tenant_of(shell, "checkout")
        await shell.execute(message(tenant_updated(tenant_id, version=9, status="erasing", settled_by=["payments"]), tenant_id))
        async with shell.database.transaction([tenant_id]) as connection:
            await connection.execute("SELECT erasure_seal($1)", tenant_id)
            set_timer = "INSERT INTO timer (tenant_id, name, key, due_at, free_at) VALUES ($1, $2, $1, now(), now())"
            await connection.execute(set_timer, tenant_id, next(iter(COMMANDS)))
        assert await fire_due(shell, COMMANDS) == 1
        async with shell.database.transaction([tenant_id]) as connection:
            assert await connection.fetchval("SELECT count(*) FROM timer") == 0


@pytest.mark.parametrize("leaver", ["payments"], indirect=True)
async def test_payments_says_once_that_all_money_has_come_to_its_end_before_checkout_goes(leaver: Leaver) -> None:
    tenant_id = leaver.victim.tenant_id

    async def said() -> int:
        admin = await leaver.victim.place.as_admin()
        sql = "SELECT count(*) FROM outbox_event WHERE tenant_id = $1 AND position($2 in headers) > 0"
        count: int = await admin.fetchval(sql, tenant_id, b"tenant.settled")
        await admin.close()
        return count

    await leaver.victim.shell.execute(message(tenant_updated(tenant_id, version=8, status="erasing"), tenant_id))
    for _, _, ends in UNDER_WAY["payments"]:
        await leaver.eraser.look()
        assert await said() == 0
        await leaver.as_admin(ends)
    for _ in range(3):
        await leaver.eraser.look()
        assert await said() == 1
    assert (await leaver.counts())["erasure"] == 0, "it is not its turn"
    await leaver.is_to_leave()
    await _erased(leaver)


async def test_one_that_cannot_be_erased_holds_up_none_of_the_others(empty: Places) -> None:
    place = empty("cart")
    async with edge(place) as (_, shell):
        tenant_ids = sorted([await tenant_of(shell, "cart") for _ in range(2)])
        for tenant_id in tenant_ids:
            told = tenant_updated(tenant_id, version=9, status="erasing", erased_by=["checkout"], settled_by=["payments"])
            await shell.execute(message(told, tenant_id))
        admin = await place.as_admin()
        await admin.execute("UPDATE outbox_cursor SET lo = pg_current_snapshot()")
        await admin.execute("UPDATE tenant SET settings = '[]' WHERE tenant_id = $1", tenant_ids[0])  # nobody can read that
        await parts_of("cart").eraser(shell).look()
        ended = await admin.fetch("SELECT tenant_id FROM erasure WHERE erased_at IS NOT NULL")
        assert [row["tenant_id"] for row in ended] == tenant_ids[1:]
        assert await admin.fetchval("SELECT count(*) FROM tenant") == 1
        await admin.close()
