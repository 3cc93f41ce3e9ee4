"""An API asks the database of the cell that a tenant is in; what it has not got is missing to its tenants alone."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest
from structlog.testing import capture_logs

from deploy.composition import parts_of
from libs.common.auth import CLIENT
from libs.common.cells import MAIN
from libs.common.clock import PLATFORM, now
from libs.common.database import Database
from libs.common.http.elsewhere import Cell, Elsewhere
from libs.common.http.routes import Service
from libs.common.messaging.envelope import Reader
from libs.common.messaging.hints import Hints
from libs.common.messaging.repairs import ParkedMessages
from libs.common.messaging.shell import Shell
from libs.common.placements import Placements
from services.payments.domain.provider.operation import SURE_AFTER
from services.payments.domain.provider.outcome import Unknown
from tests.integration.till_edge import payments_edge
from tests.shared.callers import Person, edge, message, onboard, problem
from tests.shared.events import payment_requested, tenant_updated
from tests.shared.paying import AMOUNT, always, answer, captured
from tests.shared.places import Place, Places
from tests.shared.till import MASTER_KEYS

OPERATOR = Person(PLATFORM, role="platform-operator")
EAST = "east"
NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"


@dataclass
class Api:
    """One service's API with the main cell and another, and both cells' databases."""

    client: httpx.AsyncClient
    main: Shell
    east: Shell
    service: Service

    def place(self, tenant_id: UUID, cell: str, version: int = 1) -> UUID:
        """Have it learn where a tenant is."""
        self.service.elsewhere.placements.learn(tenant_id, version, cell)
        return tenant_id

    async def easterner(self) -> UUID:
        """A tenant that is in the east."""
        tenant_id = uuid4()
        await self.east.execute(message(tenant_updated(tenant_id, cell=EAST), tenant_id))
        return self.place(tenant_id, EAST)


@asynccontextmanager
async def with_east(client: httpx.AsyncClient, main: Shell, url: str) -> AsyncIterator[Api]:
    """Give an API another cell, as its process does when it starts."""
    transport: Any = client._transport
    service: Service = transport.app.state.service
    main.cell = MAIN
    parts = parts_of(service.name)
    database = await Database.connect(url, application="test", size=5, least=0)
    hints = Hints(url)
    await hints.start()
    try:
        east = parts.shell(database, hints, "api", cell=EAST)
        parked = ParkedMessages(east, Reader(east.handlers.events()), service.name)
        service.elsewhere = Elsewhere(Placements(), {EAST: Cell(east, parked)})
        yield Api(client, main, east, service)
    finally:
        await hints.close()
        await database.close()


@pytest.fixture
def api(empty: Places, elsewhere: Places) -> Callable[[str], AbstractAsyncContextManager[Api]]:
    @asynccontextmanager
    async def opened(service: str) -> AsyncIterator[Api]:
        there = elsewhere(service)
        async with edge(empty(service)) as (client, main), with_east(client, main, there.url("app")) as both:
            yield both

    return opened


async def rows(shell: Shell, tenant_id: UUID, table: str) -> int:
    async with shell.database.transaction([tenant_id]) as connection:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))


# --- Whose database -----------------------------------------------------------------------------------------------


async def test_what_a_tenant_does_is_in_its_cells_database_and_in_no_other(api: Any) -> None:
    async with api("cart") as both:
        eastern, western = await both.easterner(), await onboard(both.main)
        for tenant_id, here, there in ((eastern, both.east, both.main), (western, both.main, both.east)):
            headers = Person(tenant_id).authorization
            made = await both.client.post("/v1/carts", headers=headers)
            assert made.status_code == 201
            assert (await both.client.get(made.headers["location"], headers=headers)).status_code == 200
            assert [await rows(shell, tenant_id, "cart") for shell in (here, there)] == [1, 0]


async def test_a_key_is_remembered_where_its_tenant_is(api: Any) -> None:
    async with api("checkout") as both:
        shopper = Person(await both.easterner())
        headers = {**shopper.authorization, "Idempotency-Key": "once"}
        body = {"cart_id": str(uuid4()), "payment": {"method": "pm_card_visa"}}
        first, again = [await both.client.post("/v1/checkouts", json=body, headers=headers) for _ in range(2)]
        assert (first.status_code, again.json()["id"]) == (202, first.json()["id"])
        assert again.headers["idempotent-replayed"] == "true"
        assert [await rows(shell, shopper.tenant_id, "idempotency_key") for shell in (both.east, both.main)] == [1, 0]


async def test_whoever_waits_for_a_checkout_is_called_by_its_own_cell(api: Any) -> None:
    async with api("checkout") as both:
        headers = Person(await both.easterner()).authorization
        body = {"cart_id": str(uuid4()), "payment": {"method": "pm_card_visa"}}
        started = await both.client.post("/v1/checkouts", json=body, headers={**headers, "Idempotency-Key": "a"})
        path, id_ = started.headers["location"], started.json()["id"]
        waits = asyncio.create_task(both.client.get(path, headers={**headers, "Prefer": "wait=30"}))
        async with asyncio.timeout(60):
            while id_ not in both.east.hints._waiting:
                assert not waits.done()
                await asyncio.sleep(0.01)
        assert (await both.client.post(f"{path}/cancel", headers={**headers, "Idempotency-Key": "b"})).status_code in {200, 202}
        assert (await waits).json()["state"] in {"canceled", "canceling"}


async def test_of_two_words_on_where_a_tenant_is_the_later_counts(api: Any) -> None:
    async with api("cart") as both:
        tenant_id = await both.easterner()
        headers = Person(tenant_id).authorization
        path = (await both.client.post("/v1/carts", headers=headers)).headers["location"]
        both.place(tenant_id, "main", version=3)
        both.place(tenant_id, EAST, version=2)
        assert (await both.client.get(path, headers=headers)).status_code == 404, "main knows nothing of it"
        both.place(tenant_id, EAST, version=4)
        assert (await both.client.get(path, headers=headers)).status_code == 200


async def test_a_tenants_parked_messages_are_those_of_its_cell(api: Any) -> None:
    async with api("cart") as both:
        eastern = await both.easterner()
        for shell, offset in ((both.main, 1), (both.east, 2)):
            async with shell.database.transaction([eastern]) as connection:
                await connection.execute(PARKED, offset, eastern)
        found = await both.client.get("/v1/cart-parked-messages", headers=Person(eastern, role=CLIENT).authorization)
        assert [each["offset"] for each in found.json()["items"]] == [2]


PARKED = """INSERT INTO inbox_parked
    (consumer, topic, part, off, key, headers, payload, tenant_id, type, source, reason, detail, state)
VALUES ('cart', 'product.v1', 0, $1, 'k', '[]', '{}', $2, 't', 's', 'schema', 'd', 'parked')"""


# --- What is missing ----------------------------------------------------------------------------------------------


async def test_a_cell_that_the_api_has_not_got_is_missing_to_its_tenants_alone_and_an_operator_is_told_once(api: Any) -> None:
    async with api("cart") as both:
        stranded, eastern, western = await onboard(both.main), await both.easterner(), await onboard(both.main)
        both.place(stranded, "west")
        with capture_logs() as lines:
            refused = [await both.client.post("/v1/carts", headers=Person(stranded).authorization) for _ in range(2)]
        assert {(each.status_code, problem(each)["code"]) for each in refused} == {(503, "cell-unavailable")}
        assert int(refused[0].headers["retry-after"]) >= 1
        [told] = [line for line in lines if line["event"] == "cell.unavailable"]
        assert "CARTWRIGHT_CELL_DATABASE_URLS" in told["action"]
        for tenant_id in (eastern, western):
            assert (await both.client.post("/v1/carts", headers=Person(tenant_id).authorization)).status_code == 201


async def test_with_no_other_cell_a_tenant_of_one_is_refused_all_the_same(empty: Places) -> None:
    async with edge(empty("cart")) as (client, main):
        transport: Any = client._transport
        stranded, western = await onboard(main), await onboard(main)
        transport.app.state.service.elsewhere.placements.learn(stranded, 1, EAST)
        answers = [await client.post("/v1/carts", headers=Person(each).authorization) for each in (stranded, western)]
        assert [each.status_code for each in answers] == [503, 201]


async def test_a_cells_database_that_is_away_from_the_start_is_away_for_its_tenants_alone(empty: Places) -> None:
    async with edge(empty("cart")) as (client, main), with_east(client, main, NOWHERE) as both:
        eastern, western = both.place(uuid4(), EAST), await onboard(main)
        answers = [await client.post("/v1/carts", headers=Person(each).authorization) for each in (eastern, western)]
        assert [each.status_code for each in answers] == [503, 201]
        assert problem(answers[0])["code"] == "database-unavailable"


async def test_with_several_cells_nothing_is_read_before_it_is_known_who_is_where(api: Any) -> None:
    async with api("cart") as both:
        headers = Person(await onboard(both.main)).authorization
        both.service.elsewhere.placements = placements = Placements(follows=True)
        assert problem(await both.client.get("/v1/carts", headers=headers))["code"] == "tenants-unavailable"
        placements.read_to_its_end()
        assert (await both.client.get("/v1/carts", headers=headers)).status_code == 200


# --- What operators list ------------------------------------------------------------------------------------------


async def unended(shell: Shell, tenant_id: UUID) -> UUID:
    """A payment whose outcome nobody knows, long enough for a person to look at it."""
    requested = payment_requested(amount_minor=AMOUNT)
    await shell.execute(message(requested, tenant_id))
    for _ in range(SURE_AFTER):
        await answer(shell, tenant_id, always(Unknown("no answer")))
    return requested.payment_id


async def pages(client: httpx.AsyncClient, path: str, **asked: Any) -> list[Mapping[str, Any]]:
    """All of a list, one by one."""
    found, asked = [], {"limit": 1, **asked}
    while True:
        page = (await client.get(path, params=asked, headers=OPERATOR.authorization)).json()
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        asked["cursor"] = page["next_cursor"]


async def test_operators_list_what_waits_in_all_cells_in_one_order_and_nothing_twice(api: Any) -> None:
    async with api("payments") as both:
        western, eastern = await onboard(both.main), await both.easterner()
        moved = await both.easterner()
        await both.main.execute(message(tenant_updated(moved), moved))
        waiting = [await unended(shell, of) for shell, of in ((both.east, eastern), (both.main, western)) * 2]
        await unended(both.main, moved)  # what was left behind by it
        waiting.append(await unended(both.east, moved))
        for path in ("/ops/payments/unknown", "/ops/reviews"):
            assert [each["payment_id"] for each in await pages(both.client, path)] == [str(each) for each in waiting]
            theirs = await pages(both.client, path, tenant_id=str(eastern))
            assert [each["payment_id"] for each in theirs] == [str(waiting[0]), str(waiting[2])]
        both.place(uuid4(), "west")
        asked = await both.client.get("/ops/reviews", headers=OPERATOR.authorization)
        assert problem(asked)["code"] == "cell-unavailable", "half a list would look like a whole one"


def notice(intent_id: str, **metadata: str) -> bytes:
    """What the provider tells the platform of a payment."""
    thing = {"object": "payment_intent", "id": intent_id, "status": "succeeded", "amount_received": AMOUNT, "metadata": metadata}
    whole = {"object": "event", "type": "payment_intent.succeeded", "created": int(now().timestamp()), "livemode": False}
    return orjson.dumps({**whole, "id": f"evt_{uuid4().hex}", "data": {"object": thing}})


async def test_a_notice_that_names_a_payment_alone_finds_its_tenant_in_whichever_cell(
    empty: Places, elsewhere: Places, fake: str
) -> None:
    async with (
        payments_edge(empty("payments"), fake, MASTER_KEYS) as payments,
        with_east(payments.client, payments.shell, elsewhere("payments").url("app")) as both,
    ):
        eastern = await both.easterner()
        await captured(both.east, eastern)
        async with both.east.database.transaction([eastern]) as connection:
            intent_id = await connection.fetchval("SELECT intent_id FROM payment")
        body = notice(intent_id)
        told = await payments.tell_platform(body)
        assert told.json() == {"status": "accepted"}
        assert [await rows(shell, eastern, "webhook_event") for shell in (both.east, both.main)] == [1, 0]
        both.service.elsewhere.placements.learn(uuid4(), 1, "west")
        again = await payments.tell_platform(body)
        assert problem(again)["code"] == "cell-unavailable", "it may be of one there: the provider sends it again"


async def test_nothing_is_taken_for_a_tenant_that_has_left_by_an_api_that_has_not_heard_of_it(
    empty: Places, elsewhere: Places, fake: str
) -> None:
    async with (
        payments_edge(empty("payments"), fake, MASTER_KEYS) as payments,
        with_east(payments.client, payments.shell, elsewhere("payments").url("app")) as both,
    ):
        leaver = await onboard(both.main)
        connections, headers = "/v1/provider-accounts/stripe/connections", Person(leaver, role=CLIENT).authorization
        assert (await payments.tell_platform(notice("pi_1", tenant_id=str(leaver)))).json() == {"status": "accepted"}
        assert (await both.client.post(connections, headers=headers)).status_code == 201
        async with both.main.database.transaction([leaver]) as connection:
            await connection.execute("UPDATE tenant SET cell = 'east', status = 'elsewhere'")
        for known in ("its account as remembered", "its account as it is"):
            refused = await payments.tell_platform(notice("pi_2", tenant_id=str(leaver)))
            assert (refused.status_code, problem(refused)["code"]) == (503, "tenant-moving"), known
            payments.gateways._known.clear()
        assert problem(await both.client.post(connections, headers=headers))["code"] == "tenant-moving"
        assert [await rows(both.main, leaver, each) for each in ("webhook_event", "account_connection")] == [1, 1]
        await both.east.execute(message(tenant_updated(leaver, cell=EAST), leaver))
        both.place(leaver, EAST, version=2)
        assert (await payments.tell_platform(notice("pi_2", tenant_id=str(leaver)))).json() == {"status": "accepted"}
        assert (await both.client.post(connections, headers=headers)).status_code == 201
        assert [await rows(both.east, leaver, each) for each in ("webhook_event", "account_connection")] == [1, 1]


# --- Who says where a tenant is -----------------------------------------------------------------------------------


async def told(place: Place, tenant_id: UUID) -> list[tuple[int, str]]:
    """Version and cell, as all who follow tenants hear of this one."""
    admin = await place.as_admin()
    try:
        found = await admin.fetch("SELECT payload FROM outbox_event WHERE tenant_id = $1 ORDER BY id", tenant_id)
    finally:
        await admin.close()
    events = [orjson.loads(row["payload"]) for row in found]
    return [(event["version"], event["cell"]) for event in events if "cell" in event]


async def test_an_operator_says_where_a_tenant_is_and_all_who_follow_tenants_hear_of_it_once(empty: Places) -> None:
    place = empty("identity")
    async with edge(place) as (client, _):
        new = {"slug": "eastern", "name": "Eastern", "currency": "GBP", "country": "GB", "admin_email": "a@eastern.test"}
        headers = {**OPERATOR.authorization, "Idempotency-Key": "k"}
        made = (await client.post("/v1/tenants", json={**new, "cell": EAST}, headers=headers)).json()
        assert made["cell"] == EAST
        path = f"/v1/tenants/{made['tenant_id']}"
        placed = [await client.put(f"{path}/cell", json={"cell": "west"}, headers=OPERATOR.authorization) for _ in range(2)]
        assert [(each.status_code, each.json()["cell"], each.headers["etag"]) for each in placed] == [(200, "west", '"2"')] * 2
        assert (await client.get(path, headers=OPERATOR.authorization)).json()["cell"] == "west"
        [listed] = (await client.get("/v1/tenants?slug=eastern", headers=OPERATOR.authorization)).json()["items"]
        assert listed["cell"] == "west"
        own = Person(UUID(made["tenant_id"]), role=CLIENT, scope=["tenants:manage"])
        refused = [
            await client.put(f"{path}/cell", json=body, headers=who.authorization)
            for who, body in ((own, {"cell": "north"}), (OPERATOR, {"cell": "North"}), (OPERATOR, {}))
        ]
        assert [each.status_code for each in refused] == [403, 422, 422]
        unknown = await client.put(f"/v1/tenants/{uuid4()}/cell", json={"cell": EAST}, headers=OPERATOR.authorization)
        assert problem(unknown)["code"] == "tenant-not-found"
        assert await told(place, UUID(made["tenant_id"])) == [(1, EAST), (2, "west")]
