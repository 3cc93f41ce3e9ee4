"""A drop at checkout's edge, with a worker beside it: who queues is let in once, in order, and nobody else buys."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from libs.common.clock import now
from services.checkout import repository
from services.checkout.domain.drop import Drop, drop_id
from services.checkout.domain.saga import Checkout, CheckoutState
from services.checkout.jobs.admission import KEPT, let_in_once
from tests.integration.shop import Shop, shop_at
from tests.shared.callers import Person, count, problem
from tests.shared.events import cart_frozen_for, frozen_line, payment_authorized
from tests.shared.places import Places

FAST = {"per_minute": 1_000_000}
UNITS, CROWD = 20, 300


@pytest.fixture
async def shop(shared: Places) -> AsyncIterator[Shop]:
    async with shop_at(shared("checkout")) as shop:
        yield shop


async def opened(shop: Shop, sku: str, units: int, **terms: Any) -> str:
    await count(shop.worker, shop.tenant_id, sku, units)
    put = await shop.ask("PUT", f"/v1/drops/{sku}", shop.staff, json={**FAST, **terms})
    assert put.status_code == 200, put.text
    return f"/v1/drops/{sku}/places"


async def bought(shop: Shop, who: Person, sku: str) -> Checkout:
    cart = {"cart_id": str(uuid4()), "payment": {"method": "pm_card_visa"}}
    started = await shop.ask("POST", "/v1/checkouts", who, json=cart)
    checkout = await shop.checkout(started.json()["id"])
    await shop.tell(cart_frozen_for(checkout, frozen_line(sku, 1, 250, name=sku)))
    paying = await shop.checkout(str(checkout.id))
    if paying.state is CheckoutState.PAYING:
        await shop.tell(payment_authorized(paying))
    return await shop.checkout(str(checkout.id))


async def the_drop(shop: Shop, sku: str) -> Drop:
    async with shop.worker.database.transaction([shop.tenant_id]) as connection:
        [found] = await repository.DROPS.load(connection, [(shop.tenant_id, drop_id(sku))], lock=False)
    return found


async def test_a_crowd_larger_than_the_units_buys_exactly_those_in_order_and_the_rest_is_told(shop: Shop) -> None:
    queue = await opened(shop, "shoe", UNITS)
    crowd = [Person(shop.tenant_id) for _ in range(CROWD)]
    joined = await asyncio.gather(*(shop.ask("POST", queue, who) for who in crowd for _ in range(2)))
    assert sorted(answer.status_code for answer in joined) == [*CROWD * [200], *CROWD * [201]]
    assert (await the_drop(shop, "shoe")).last_number == CROWD, "one place each"
    sold: list[UUID] = []
    while not (await the_drop(shop, "shoe")).sold_out:
        await asyncio.gather(*(let_in_once(shop.worker) for _ in range(2)))
        for who in crowd:
            mine = (await shop.ask("GET", f"{queue}/mine", who)).json()
            if mine["state"] == "admitted" and (await bought(shop, who, "shoe")).state is CheckoutState.CONFIRMED:
                sold.append(who.subject)
    assert len(sold) == UNITS
    await asyncio.sleep(repository.drops.LOOK_SECONDS)  # so old may be what those who wait are told
    told = [(await shop.ask("GET", f"{queue}/mine", who)).json()["state"] for who in crowd]
    assert {*told} <= {"used", "sold-out", "admitted"}
    assert (told.count("used"), told.count("sold-out") >= CROWD - UNITS - 1) == (UNITS, True)
    late = await shop.ask("POST", queue, Person(shop.tenant_id))
    assert (late.status_code, problem(late)["code"]) == (409, "sold-out")


async def test_two_jobs_at_once_let_in_nobody_twice_and_no_more_than_there_are(shop: Shop) -> None:
    queue = await opened(shop, "hat", 5)
    await asyncio.gather(*(shop.ask("POST", queue, Person(shop.tenant_id)) for _ in range(30)))
    counts = [await asyncio.gather(*(let_in_once(shop.worker) for _ in range(4))) for _ in range(3)]
    assert sum(map(sum, counts)) == 5
    assert (await the_drop(shop, "hat")).served_number == 5


async def test_who_was_not_let_in_is_told_where_to_queue_and_buys_once_they_are(shop: Shop) -> None:
    queue = await opened(shop, "bag", 3)
    ended = await bought(shop, shop.shopper, "bag")
    seen = (await shop.ask("GET", f"/v1/checkouts/{ended.id}")).json()
    assert (seen["state"], seen["reason"], seen["waiting_room"]) == ("failed", "waiting-room", queue)
    assert (await shop.ask("GET", f"{queue}/mine")).json() == {"sku": "bag", "state": "none"}
    assert (await shop.ask("GET", f"{queue}/mine/events")).status_code == 204
    place = await shop.ask("POST", queue)
    assert (place.status_code, place.json()["state"], place.json()["ahead"]) == (201, "waiting", 0)
    assert place.headers["location"] == f"{queue}/mine"
    assert int(place.headers["retry-after"]) >= 1
    waiting = await shop.ask("GET", f"{queue}/mine")
    assert int(waiting.headers["retry-after"]) >= 1
    while not await let_in_once(shop.worker):
        pass
    stream = await shop.ask("GET", f"{queue}/mine/events")
    [told] = [line for line in stream.text.splitlines() if line.startswith("data:")]
    assert orjson.loads(told.removeprefix("data:"))["state"] == "admitted"
    assert (await bought(shop, shop.shopper, "bag")).state is CheckoutState.CONFIRMED
    assert (await shop.ask("GET", f"{queue}/mine")).json()["state"] == "used"


async def test_a_drop_is_staffs_to_open_and_take_away_and_any_shoppers_to_see(shop: Shop) -> None:
    queue = await opened(shop, "cap", 1, starts_at="2999-01-01T00:00:00Z")
    assert (await shop.ask("PUT", "/v1/drops/cap", json=FAST)).status_code == 403
    assert (await shop.ask("POST", queue)).json()["expected_at"].startswith("2999-01-01")
    assert not await let_in_once(shop.worker)
    seen = (await shop.ask("GET", "/v1/drops/cap")).json()
    assert (seen["waiting"], seen["sold_out"]) == (1, False)
    assert seen in (await shop.ask("GET", "/v1/drops", shop.staff)).json()["items"]
    foreign = Person(uuid4())
    assert (await shop.ask("GET", "/v1/drops/cap", foreign)).status_code == 404
    assert (await shop.ask("DELETE", "/v1/drops/cap", shop.staff)).status_code == 204
    assert (await shop.ask("POST", queue)).status_code == 404
    assert (await bought(shop, shop.shopper, "cap")).state is CheckoutState.CONFIRMED
    refused = await shop.ask("PUT", "/v1/drops/cap", shop.staff, json={**FAST, "ends_at": now().isoformat()})
    assert (refused.status_code, problem(refused)["code"]) == (422, "drop-ends-before")


async def test_who_asked_while_they_waited_is_told_what_came_of_their_place_since(shop: Shop) -> None:
    queue = await opened(shop, "mug", 9, starts_at="2999-01-01T00:00:00Z")

    async def place() -> tuple[str | int, int | None]:
        await asyncio.sleep(repository.drops.LOOK_SECONDS)
        told = (await shop.ask("GET", f"{queue}/mine")).json()
        return told.get("state", told.get("status")), told.get("ahead")

    await shop.ask("POST", queue)
    assert [await place(), await place()] == [("waiting", 0)] * 2
    assert (await shop.ask("DELETE", "/v1/drops/mug", shop.staff)).status_code == 204
    assert (await place())[0] == 404
    await shop.ask("PUT", "/v1/drops/mug", shop.staff, json={**FAST, "starts_at": "2999-01-01T00:00:00Z"})
    assert (await place())[0] == "none"
    await shop.ask("POST", queue, Person(shop.tenant_id))
    await shop.ask("POST", queue)
    assert await place() == ("waiting", 1)


async def test_places_of_long_ago_are_forgotten_and_no_younger_ones_are(shop: Shop) -> None:
    queue = await opened(shop, "old", 9)
    old, young = Person(shop.tenant_id), Person(shop.tenant_id)
    for who in (old, young):
        await shop.ask("POST", queue, who)
    async with shop.worker.database.transaction([shop.tenant_id]) as connection:
        sql = "UPDATE drop_place SET joined_at = now() - interval '32 days' WHERE tenant_id = $1 AND subject_id = $2"
        await connection.execute(sql, shop.tenant_id, old.subject)
    async with shop.worker.database.acquire() as connection:
        await repository.drops.forget_places(connection, KEPT, 1_000)
    states = [(await shop.ask("GET", f"{queue}/mine", who)).json()["state"] for who in (old, young)]
    assert states == ["none", "waiting"]
