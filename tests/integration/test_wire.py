"""What begins and ends a transaction rides on its statements, and whatever happens at any frame, none is ever done by half.

Nor is a connection lent on within a transaction, or with the tenants of another.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from libs.common.database import ConcurrencyError, Connection, Database, Write, fetch, write
from libs.common.database import wire as riding
from libs.common.errors import ConflictError
from libs.common.silence import Loop
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


async def test_whichever_statement_fails_nothing_stands_and_the_connection_goes_on(scene: Scene) -> None:
    await scene.admin.execute("CREATE TABLE late (n int, UNIQUE (n) DEFERRABLE INITIALLY DEFERRED)")
    await scene.admin.execute("GRANT SELECT, INSERT ON late TO cart_app")
    async with scene.database.acquire() as connection:
        pid = connection.get_server_pid()

    async def run(cart: Cart, statements: Sequence[Any], ends_with: Sequence[Any], error: Any) -> None:
        async with scene.database.transaction([cart.tenant_id]) as connection:
            for sql, *arguments in statements:
                await connection.fetch(sql, *arguments)
            if error is ZeroDivisionError:
                raise ZeroDivisionError
            await write(connection, [Write(*each) for each in ends_with], ends=True)

    change = ("UPDATE cart SET version = 2 WHERE version = $1", [1], 1)
    for statements, ends_with, error in (
        ([("SELECT 1 / $1::int", 0)], [change], asyncpg.DivisionByZeroError),  # the first, before which it begins
        ([("SELECT $1::int", "no number")], [change], asyncpg.DataError),  # one that never goes out
        ([("SELECT 1 FROM nowhere",)], [change], asyncpg.UndefinedTableError),  # one that cannot be prepared
        ([("SELECT 1",), ("UPDATE cart SET version = 2 + $1 - 1 / $1::int", 0)], [change], asyncpg.DivisionByZeroError),
        ([("UPDATE cart SET version = 2",)], [change], ConcurrencyError),  # the last, for it had moved
        ([], [("UPDATE cart SET version = 2 WHERE version = $1", [7], 1)], ConcurrencyError),  # the only one
        (
            [],
            [change, ("INSERT INTO late VALUES ($1)", [None]), ("UPDATE cart SET state = $1", ["nowhere"])],
            asyncpg.CheckViolationError,
        ),
        (
            [],
            [change, ("INSERT INTO late VALUES ($1), ($1)", [1])],
            (asyncpg.UniqueViolationError, ConflictError),
        ),  # COMMIT itself
        ([("UPDATE cart SET version = 2",)], [], ZeroDivisionError),  # nothing of the server's
    ):
        for _ in range(3):  # new to the connection, and not
            cart = await scene.cart()
            with pytest.raises(error):
                await run(cart, statements, ends_with, error)
            assert await scene.stored(cart) == BEFORE, (statements, ends_with)
            await scene.is_clean()
    async with scene.database.acquire() as connection:
        assert connection.get_server_pid() == pid


async def test_nothing_can_follow_what_ends_a_transaction(scene: Scene) -> None:
    async def go_on(cart: Cart, follows: Callable[[Connection], Awaitable[Any]]) -> None:
        async with scene.database.transaction([cart.tenant_id]) as connection:
            await fetch(connection, "UPDATE cart SET version = 2 WHERE version < $1 RETURNING true", 3, ends=True)
            await follows(connection)

    for follows in (
        lambda connection: connection.fetch("UPDATE cart SET version = 3 RETURNING true"),
        lambda connection: connection.execute("DELETE FROM cart"),
        lambda connection: connection.executemany("UPDATE cart SET version = $1", [(3,)]),
    ):
        for is_warm in (False, True):  # what is new here is committed when its transaction is left: not this one
            cart = await scene.cart()
            if is_warm:
                await go_on(await scene.cart(), lambda _: asyncio.sleep(0))
            with pytest.raises(asyncpg.InterfaceError, match="has ended"):
                await go_on(cart, follows)
            assert await scene.stored(cart) == ((2, 0) if is_warm else BEFORE)
            await scene.is_clean()


async def test_among_transactions_of_all_kinds_each_sees_its_own_tenants_and_none_leaves_anything(scene: Scene) -> None:
    chance = random.Random(20261130)
    kept: dict[UUID, int] = {}

    async def one() -> None:
        tenants = {uuid4() for _ in range(chance.randrange(3))}
        product = [Product(tenant_id=each, sku=str(uuid4()), version=1) for each in tenants]
        ways = [chance.choice(("fetch", "execute", "text", "many", "fail", "wait")) for _ in range(chance.randrange(4))]
        async with scene.database.transaction(tenants) as connection:
            for way in ways:
                await _WAYS[way](connection)
                assert set(filter(None, (await connection.fetchval(SETTING)).split(","))) == {*map(str, tenants)}
            await write(connection, PRODUCTS.changes([(each, 0) for each in product]), ends=chance.random() < 0.7)
        kept.update(dict.fromkeys(tenants, 1))

    for _ in range(300):
        under_way = asyncio.create_task(one())
        if chance.random() < 0.3:
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            await asyncio.sleep(chance.choice((0, 0.001, 0.003)))
            under_way.cancel()
        with suppress(asyncio.CancelledError, asyncpg.DivisionByZeroError):
            await under_way
        async with scene.database.acquire() as connection:
            assert not connection.is_in_transaction()
            assert not await connection.fetchval(SETTING)
    assert len(kept) > 50
    async with scene.beside.transaction(kept) as connection:
        assert await connection.fetchval("SELECT count(*) FROM product WHERE tenant_id = ANY ($1::uuid[])", [*kept]) == len(kept)


_WAYS: dict[str, Callable[[Connection], Awaitable[Any]]] = {
    "fetch": lambda connection: connection.fetch(f"{COUNT} WHERE tenant_id <> $1", uuid4()),
    "execute": lambda connection: connection.execute("UPDATE product SET version = version + $1", 0),
    "text": lambda connection: connection.execute("UPDATE product SET version = version"),
    "many": lambda connection: connection.executemany("UPDATE product SET version = version + $1", [(0,), (0,)]),
    "fail": lambda connection: connection.fetch("SELECT 1 / $1::int", 0),
    "wait": lambda connection: connection.fetch("SELECT pg_sleep($1)", 0.002),
}


async def test_a_connection_that_cannot_prove_it_is_used_plainly(scene: Scene, place: Place) -> None:
    class Elsewhere(asyncpg.Connection):  # type: ignore[misc] # asyncpg has no types
        """Of a version that keeps another transport than the one that it was connected with."""

        def __init__(self, protocol: Any, wire: Any, *rest: Any) -> None:
            super().__init__(protocol, getattr(wire, "transport", wire), *rest)

    class Counting(asyncpg.Connection):  # type: ignore[misc] # as above
        """Of a version that never says that it is in a transaction."""

        def is_in_transaction(self) -> bool:
            return False

    for kind in (Elsewhere, Counting):
        connection = await riding.connect(place.url("app"), loop=Loop(asyncio.get_running_loop()), connection_class=kind)
        assert riding.wire_of(connection) is None
        await riding.begin(connection, [tenant_id := uuid4()])
        assert await fetch(connection, SETTING, ends=True) == [(str(tenant_id),)]
        await riding.commit(connection)
        assert not await connection.fetchval(SETTING)
        await connection.close()
    async with scene.database.acquire() as connection:
        assert riding.wire_of(connection) is not None, "with the asyncpg that is installed it rides"
