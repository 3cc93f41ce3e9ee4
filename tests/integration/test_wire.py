"""What begins and ends a transaction rides on its statements, and whatever happens at any frame, none is ever done by half.

Nor is a connection lent on within a transaction, or with the tenants of another.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
import pytest

from libs.common.database import Database, write
from libs.common.database import wire as riding
from services.cart import domain
from services.cart.domain import Cart, Product
from services.cart.repository import CARTS, PRODUCTS
from tests.integration.tap import Frame, Tap, tapped
from tests.shared.places import Place, Places

SETTING = "SELECT current_setting('cartwright.tenant_ids', true)"
COUNT = "SELECT count(*) FROM cart"
BEFORE, AFTER = (1, 0), (2, 1)
"""The version of the cart, and how many products there are."""


@pytest.fixture
def place(shared: Places) -> Place:
    return shared("cart")


@dataclass
class Scene:
    """A database behind a tap, and the same one past it."""

    database: Database
    tap: Tap
    beside: Database
    admin: asyncpg.Connection

    async def cart(self) -> Cart:
        """A cart of a tenant of its own."""
        cart = replace(domain.create(uuid4(), uuid4(), uuid4(), "GBP", datetime(2026, 1, 1, tzinfo=UTC)), version=1)
        async with self.beside.transaction([cart.tenant_id]) as connection:
            await write(connection, CARTS.changes([(cart, 0)]))
        return cart

    async def change(self, cart: Cart) -> None:
        """What a request does: look, with a lock, and write two things."""
        async with self.database.transaction([cart.tenant_id]) as connection:
            [found] = await CARTS.load(connection, [(cart.tenant_id, cart.id)], lock=True)
            product = Product(tenant_id=cart.tenant_id, sku="TEA", version=1)
            changes = [*CARTS.changes([(replace(found, version=2), 1)]), *PRODUCTS.changes([(product, 0)])]
            await write(connection, changes, ends=True)

    async def stored(self, cart: Cart) -> tuple[int, int]:
        """What is there of it when the servers of our connections, but one that is whole, are gone."""
        async with self.beside.transaction([cart.tenant_id]) as connection:
            sql = "SELECT version, (SELECT count(*) FROM product) AS products FROM cart FOR UPDATE"
            row = await connection.fetchrow(sql)
        assert row is not None
        return row["version"], row["products"]

    async def is_gone(self) -> None:
        """Wait until no server works for the tapped database any more."""
        while await self.admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tapped'"):
            await asyncio.sleep(0.01)

    async def is_clean(self) -> None:
        """Whoever borrows a connection next is in no transaction, sees nobody's rows, and in his own transaction his alone."""
        async with self.database.acquire() as connection:
            assert not connection.is_in_transaction()
            assert not await connection.fetchval(SETTING)
            assert await connection.fetchval(COUNT) == 0
            assert riding.wire_of(connection) is not None
        mine = uuid4()
        async with self.database.transaction([mine]) as connection:
            assert await connection.fetchval(COUNT) == 0
            assert await connection.fetchval(SETTING) == str(mine)


@pytest.fixture
async def scene(place: Place) -> AsyncIterator[Scene]:
    admin = await place.as_admin()
    beside = await Database.connect(place.url("app"), application="beside", size=1)
    async with tapped(place.url("app")) as (tap, url):
        database = await Database.connect(url, application="tapped", size=1)
        yield Scene(database, tap, beside, admin)
        await database.close()
    await beside.close()
    await admin.close()


async def test_a_transaction_takes_as_many_round_trips_as_it_has_statements(scene: Scene) -> None:
    trips = []
    for _ in range(2):
        cart = await scene.cart()
        scene.tap.forget()
        await scene.change(cart)
        trips.append(scene.tap.round_trips)
        assert await scene.stored(cart) == AFTER
    scene.tap.forget()
    async with scene.database.transaction([uuid4()]):
        pass
    assert not scene.tap.seen, "nobody is told of a transaction in which nothing is asked"
    assert trips[1] == 2 < trips[0], "what is new on a connection is prepared first, and committed by itself"


@pytest.mark.parametrize("is_warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("side", ["client", "server"])
async def test_wherever_the_line_is_cut_all_of_it_stands_or_nothing(scene: Scene, side: str, *, is_warm: bool) -> None:
    async def cut(number: int, cart: Cart) -> bool:
        scene.tap.passes = _at(side, number, lambda: False)
        with suppress(asyncpg.PostgresConnectionError, asyncpg.InterfaceError, ConnectionError):
            await scene.change(cart)
            return True
        return False

    number, outcomes, is_done = 0, set(), False
    while not is_done:
        await _anew(scene, is_warm=is_warm)
        cart = await scene.cart()
        is_done = await cut(number, cart)
        told = scene.tap.commit_passed
        if not is_done:
            await scene.is_gone()
        stored = await scene.stored(cart)
        assert stored == (AFTER if told else BEFORE), (number, scene.tap.seen)
        outcomes.add((is_done, stored))
        scene.tap.forget()
        await scene.is_clean()
        number += 1
    assert outcomes >= {(False, BEFORE), (True, AFTER)}
    assert ((False, AFTER) in outcomes) is (is_warm or side == "server"), "of what is committed one may never hear"
    assert number > 10


@pytest.mark.parametrize("is_warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("side", ["client", "server"])
async def test_whenever_it_is_canceled_all_of_it_stands_or_nothing(scene: Scene, side: str, *, is_warm: bool) -> None:
    async with scene.database.acquire() as connection:
        pid = connection.get_server_pid()
    number, outcomes, is_done = 0, set(), False
    while not is_done:
        await _anew(scene, is_warm=is_warm)
        cart = await scene.cart()
        under_way = asyncio.create_task(scene.change(cart))
        scene.tap.passes = _at(side, number, lambda: bool(under_way.cancel()) or True)  # noqa: B023 - of this round
        try:
            await under_way
            is_done = True
        except asyncio.CancelledError:
            pass
        told = scene.tap.commit_passed
        scene.tap.forget()
        await scene.is_clean()
        stored = await scene.stored(cart)
        assert stored in ({AFTER} if is_done else {BEFORE, AFTER} if told else {BEFORE}), number
        outcomes.add((is_done, stored))
        number += 1
    assert outcomes >= {(False, BEFORE), (True, AFTER)}
    if is_warm:
        async with scene.database.acquire() as connection:
            assert connection.get_server_pid() == pid, "it need not be thrown away"


async def _anew(scene: Scene, *, is_warm: bool) -> None:
    """A connection on which all that is to come was done before, or nothing."""
    if not is_warm:
        async with scene.database.acquire() as connection:
            connection.terminate()
        await scene.is_gone()
        await scene.is_clean()
    else:
        cart = await scene.cart()
        await scene.change(cart)
    scene.tap.forget()


def _at(side: str, number: int, act: Callable[[], bool]) -> Callable[[Frame], bool]:
    """Act at this frame of this side."""
    count = 0

    def passes(frame: Frame) -> bool:
        nonlocal count
        if frame.side != side:
            return True
        count += 1
        return act() if count == number + 1 else True

    return passes
