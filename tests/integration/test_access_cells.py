"""Every cell of docs/access.md, asked for over HTTP with what its caller would be believed with."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from uuid import uuid4

import pytest

from deploy.cli.access import CALLERS, ITS, NO, OWN, YES
from deploy.local.state import ROOT
from libs.common.auth import GUEST, MEMBER, PLATFORM_OPERATOR, SHOPPER
from libs.common.clock import PLATFORM
from libs.common.http.routes import GuardedRoute
from libs.common.http.seeing import Sight
from services import SERVICES
from services.identity.domain.role import BUILT_IN
from tests.integration.victims import NEVER_SET, SEEDS, Operation, Victim
from tests.shared.callers import Person, edge, problem
from tests.shared.people import holder
from tests.shared.places import Places
from tests.shared.victims import parked, tenant_of

NAMED = {"client_id", "tenant_id", "parked_id"}
"""What a path names that is looked for by other means than a sight."""


def _cells(service: str) -> Mapping[str, Mapping[str, str]]:
    """What the document says of a service: the cells of each route, by caller."""
    text = (ROOT / "docs" / "access.md").read_text(encoding="utf-8")
    part = text.partition(f"\n### {service}\n")[2].partition("\n### ")[0].partition("<!-- /generated -->")[0]
    head, _, *rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in part.strip().splitlines()]
    return {cells[0].strip("`"): dict(zip(head[1:], cells[1:], strict=True)) for cells in rows}


def _caller(name: str, victim: Victim, *, is_another: bool = False) -> Person | None:
    """Somebody of the victim's tenant, of this kind; a buyer is the one whose things are there, or another."""
    if name == "nobody":
        return None
    if name == "platform":
        return Person(PLATFORM, role=PLATFORM_OPERATOR)
    if name in BUILT_IN:
        return holder(victim.tenant_id, uuid4(), name)
    roles = [SHOPPER, GUEST] if name == GUEST else [SHOPPER]
    buyer = Person(victim.tenant_id) if is_another else victim.shopper
    return replace(buyer, claims={"roles": roles})


def _named(operation: Operation) -> str:
    path = operation.route.path_format
    return f"{operation.method} {path}"


@pytest.fixture(params=SERVICES)
async def victim(request: pytest.FixtureRequest, shared: Places) -> AsyncIterator[Victim]:
    place = shared(request.param)
    async with edge(place) as (client, shell), AsyncExitStack() as leaves:
        tenant_id = await tenant_of(shell, request.param)
        victim = Victim(place, client, shell, tenant_id, Person(tenant_id), {}, leaves)
        victim.ids |= await SEEDS[request.param](victim)
        victim.ids |= {"parked_id": await parked(place, tenant_id), "id": await parked(place, None)}
        yield victim


async def test_every_cell_is_as_the_document_has_it(victim: Victim) -> None:
    cells = _cells(victim.place.service)
    operations = victim.operations()
    open_to_all = {name for name, row in cells.items() if {*row.values()} <= {YES} or ITS in row.values()}
    assert {_named(each) for each in operations} | open_to_all == set(cells), "the document has every route and no other"
    before = await victim.rows()
    for operation in operations:
        row = cells[_named(operation)]
        assert row.keys() == CALLERS.keys()
        for name in [name for name, cell in row.items() if cell == NO]:
            answer = await victim.ask(operation, _caller(name, victim))
            assert answer.status_code == (401 if name == "nobody" else 403), (name, operation, answer.text)
            victim.gives_nothing_away(answer)
        for name in [name for name, cell in row.items() if cell == OWN]:
            answer = await victim.ask(operation, _caller(name, victim, is_another=True))
            assert answer.status_code == 404, (name, operation, answer.text)
        if isinstance(operation.route, GuardedRoute) and (
            isinstance(operation.route.rule.sees, Sight) or NAMED & set(operation.route.param_convertors)
        ):
            for name in [name for name, cell in row.items() if name in BUILT_IN and cell != NO]:
                foreign = Person(uuid4(), role=MEMBER, scope=sorted(BUILT_IN[name]), claims={"roles": [MEMBER, name]})
                answer = await victim.ask(operation, foreign)
                assert answer.status_code == 404, (name, operation, answer.text)
                victim.gives_nothing_away(answer)
    assert await victim.rows() == before, "who may not, or not this one, changed nothing"
    for operation in operations:
        for name in [name for name, cell in cells[_named(operation)].items() if cell != NO]:
            answer = await victim.ask(operation, _caller(name, victim))
            assert answer.status_code not in {401, 403}, (name, operation, answer.text)
            if operation.method == "GET" and name != "platform" and operation.path not in NEVER_SET:
                assert answer.status_code in {200, 204}, (name, operation, answer.text)


async def test_what_is_for_anybody_asks_nobody_for_a_token_of_ours_and_what_is_of_a_token_asks_for_one(victim: Victim) -> None:
    cells = _cells(victim.place.service)
    for route in victim.routes:
        if isinstance(route, GuardedRoute) and route.rule.permission is None:
            for method in (route.methods or set()) - {"HEAD"}:
                row = cells[f"{method} {route.path_format}"]
                path = re.sub(r"\{\w+\}", str(victim.tenant_id), route.path_format)
                answer = await victim.client.request(method, path, headers={"Content-Type": "application/json"}, content=b"{}")
                if row["nobody"] == NO:
                    assert {*row.values()} == {ITS, NO}
                    assert (answer.status_code, problem(answer)["code"]) == (401, "token-missing"), path
                elif answer.headers["content-type"] == "application/problem+json":
                    assert {*row.values()} == {YES}
                    assert problem(answer)["code"] not in {"token-missing", "permission-missing", "platform-only"}, path
