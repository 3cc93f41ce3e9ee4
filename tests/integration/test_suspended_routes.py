"""Every route of a suspended tenant, asked by those who may: what begins something is refused, and the rest is not."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import httpx
import pytest

from libs.common.auth import CLIENT
from libs.common.clock import now
from libs.common.http.routes import GuardedRoute, Service
from services import SERVICES
from tests.integration.victims import SEEDS, Operation, Victim
from tests.shared.callers import Person, edge, problem
from tests.shared.places import Places
from tests.shared.victims import parked, tenant_of

REFUSED = (403, "tenant-suspended")


@pytest.fixture(params=SERVICES)
async def victim(request: pytest.FixtureRequest, shared: Places) -> AsyncIterator[Victim]:
    place = shared(request.param)
    async with edge(place) as (client, shell), AsyncExitStack() as leaves:
        tenant_id = await tenant_of(shell, request.param)
        victim = Victim(place, client, shell, tenant_id, Person(tenant_id), {}, leaves)
        victim.ids |= await SEEDS[request.param](victim)
        victim.ids |= {"parked_id": await parked(place, tenant_id), "id": await parked(place, None)}
        yield victim


def _service(victim: Victim) -> Service:
    transport: httpx.ASGITransport = victim.client._transport  # type: ignore[assignment]
    service: Service = transport.app.state.service  # type: ignore[attr-defined]
    return service


def _of_tenants(victim: Victim) -> list[Operation]:
    return [each for each in victim.operations() if isinstance(each.route, GuardedRoute) and not each.route.platform_only]


def _told(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, problem(answer)["code"] if answer.status_code >= 400 else ""


async def test_what_begins_something_is_refused_and_changes_nothing_and_the_rest_is_let_through(victim: Victim) -> None:
    staff, standings = Person(victim.tenant_id, role=CLIENT), _service(victim).standings
    standings.learn(victim.tenant_id, 2, "suspended")
    beginning = [each for each in _of_tenants(victim) if not each.route.rule.goes_on]
    assert beginning
    assert {each.method for each in beginning} <= {"POST", "PUT", "PATCH", "DELETE"}
    before = await victim.rows()
    for operation in beginning:
        assert _told(await victim.ask(operation, staff)) == REFUSED, operation
    assert await victim.rows() == before
    for operation in _of_tenants(victim):
        if operation.route.rule.goes_on:
            assert _told(await victim.ask(operation, staff)) != REFUSED, operation
    standings.learn(victim.tenant_id, 1, "active")
    assert _told(await victim.ask(beginning[0], staff)) == REFUSED, "an older word is none"
    standings.learn(victim.tenant_id, 3, "active")
    for operation in beginning:
        assert _told(await victim.ask(operation, staff)) != REFUSED, operation


async def test_a_token_that_is_over_is_told_why_a_new_one_would_not_help_and_one_that_is_none_is_not(victim: Victim) -> None:
    service, issued_at = _service(victim), int(now().timestamp())
    staff = Person(victim.tenant_id, role=CLIENT, claims={"iat": issued_at})
    begins = next(each for each in _of_tenants(victim) if not each.route.rule.goes_on)
    reads = next(each for each in _of_tenants(victim) if each.method == "GET")
    service.verifier.revocations.learn("tenant", str(victim.tenant_id), (issued_at + 1) * 1_000)
    assert _told(await victim.ask(begins, staff)) == (401, "invalid-token"), "of an open tenant it is over, and no more"
    service.standings.learn(victim.tenant_id, 2, "suspended")
    assert _told(await victim.ask(begins, staff)) == REFUSED
    assert _told(await victim.ask(reads, staff)) == (401, "invalid-token")
    forged = replace(staff, claims={"exp": 1})
    assert _told(await victim.ask(begins, forged)) == (401, "invalid-token"), "who proves nothing learns nothing"
