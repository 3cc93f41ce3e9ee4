"""What is taken away of a tenant is all of its own, nothing of others, and nothing that anybody could sign in or pay with."""

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import UUID, uuid4

import orjson
import pytest

from libs.common.auth import MEMBER, PLATFORM_OPERATOR
from libs.common.clock import PLATFORM
from libs.common.database.holdings import Holdings
from services import SERVICES
from services.identity.domain.role import BUILT_IN
from tests.integration.victims import SEEDS, Victim
from tests.shared.callers import Person, edge, problem
from tests.shared.places import Places
from tests.shared.victims import CANARY, tenant_of

SUSPICIOUS = re.compile(r"secret|digest|password|sealed|wrapped|nonce|token|hash|_key")
HARMLESS = {
    "checkout.body_digest": "of a request, to know it again",
    "customer_order.quote_hash": "of prices, to know them again",
    "payment.quote_hash": "the same",
    "provider_account.api_key_hint": "the last letters of a key, which its owner is shown too",
    "invitation.email_key": "an address in small letters",
    "member.email_key": "the same",
    "operation.idempotency_key": "with which a call was made once, and can be made by nobody else",
}
"""Columns that are taken away and sound as if they should not be."""


@pytest.fixture(params=SERVICES)
async def victim(request: pytest.FixtureRequest, shared: Places) -> AsyncIterator[Victim]:
    place = shared(request.param)
    async with edge(place) as (client, shell), AsyncExitStack() as leaves:
        tenant_id = await tenant_of(shell, request.param)
        victim = Victim(place, client, shell, tenant_id, Person(tenant_id), {}, leaves)
        victim.ids |= await SEEDS[request.param](victim)
        yield victim


async def _exported(victim: Victim, who: Person, tenant_id: UUID) -> bytes:
    path = f"/v1/{victim.place.service}-exports/{tenant_id}"
    answer = await victim.client.get(path, headers=who.authorization)
    assert answer.status_code == 200, answer.text
    return answer.content


async def test_an_export_has_every_row_of_the_tenant_and_says_how_many_and_what_they_come_to(victim: Victim) -> None:
    neighbour = await tenant_of(victim.shell, victim.place.service)
    content = await _exported(victim, Person(PLATFORM, role=PLATFORM_OPERATOR), victim.tenant_id)
    *lines, last = content.splitlines(keepends=True)
    told = orjson.loads(last)["manifest"]
    assert (told["service"], told["tenant_id"]) == (victim.place.service, str(victim.tenant_id))
    assert told["sha256"] == hashlib.sha256(b"".join(lines)).hexdigest()
    rows = [orjson.loads(line) for line in lines]
    assert {row["row"]["tenant_id"] for row in rows} == {str(victim.tenant_id)}
    admin = await victim.place.as_admin()
    try:
        for table, count in told["counts"].items():
            there = await admin.fetchval(f"SELECT count(*) FROM {table} WHERE tenant_id = $1", victim.tenant_id)
            assert (table, sum(row["table"] == table for row in rows)) == (table, count)
            assert (table, count) == (table, there)
    finally:
        await admin.close()
    assert CANARY.encode() in content
    assert str(neighbour).encode() not in content


async def test_an_owner_takes_their_own_and_nobody_elses_and_who_looks_after_the_shop_takes_none(victim: Victim) -> None:
    owner = Person(victim.tenant_id, role=MEMBER, scope=sorted(BUILT_IN["owner"]))
    assert (await _exported(victim, owner, victim.tenant_id)).endswith(b"}}\n")
    path = f"/v1/{victim.place.service}-exports/{{}}"
    stranger = Person(uuid4(), role=MEMBER, scope=sorted(BUILT_IN["owner"]))
    foreign = await victim.client.get(path.format(victim.tenant_id), headers=stranger.authorization)
    nothing = await victim.client.get(path.format(uuid4()), headers=stranger.authorization)
    assert (foreign.status_code, problem(foreign)["code"]) == (404, "tenant-not-found") == (404, problem(nothing)["code"])
    for role in BUILT_IN.keys() - {"owner"}:
        member = Person(victim.tenant_id, role=MEMBER, scope=sorted(BUILT_IN[role]))
        assert (await victim.client.get(path.format(victim.tenant_id), headers=member.authorization)).status_code == 403, role


@pytest.mark.parametrize("service", SERVICES)
def test_what_sounds_like_a_secret_stays_or_it_is_said_why_it_may_go(service: str) -> None:
    holdings: Holdings = __import__(f"services.{service}.tables", fromlist=["HOLDINGS"]).HOLDINGS
    tables, parts = holdings.metadata, holdings.parts
    columns_of = {name: {column.name for column in table.columns} for name, table in tables.tables.items()}
    seen = {f"{part.table}.{column}" for part in parts for column in columns_of[part.table] - {*part.withheld}}
    doubtful = {name for name in seen if SUSPICIOUS.search(name.partition(".")[2])}
    assert doubtful == {name for name in HARMLESS if name.partition(".")[0] in tables.tables}
    for table, columns in holdings.withheld.items():
        assert {*columns} <= columns_of[table], "what is withheld is there"
