"""What a transaction writes goes to the server together, and stands or falls together; what is lent comes back usable."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from libs.common.database import ConcurrencyError, Connection, Database, write
from libs.common.errors import ConflictError
from services.cart import domain
from services.cart.domain import Cart
from services.cart.repository import CARTS, PRODUCTS
from tests.shared.places import Place, Places

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def place(shared: Places) -> Place:
    return shared("cart")


def _cart(tenant_id: UUID) -> Cart:
    return replace(domain.create(tenant_id, uuid4(), uuid4(), "GBP", NOW), version=1)


async def _stored(connection: Connection) -> tuple[int, int]:
    row = await connection.fetchrow("SELECT (SELECT count(*) FROM cart), (SELECT count(*) FROM product)")
    assert row is not None
    return row[0], row[1]


async def test_of_many_writes_none_stands_when_one_row_had_moved_or_is_forbidden(place: Place) -> None:
    tenant_id, stranger = uuid4(), uuid4()
    database = await Database.connect(place.url("app"), application="test", size=1)
    first, second, product = _cart(tenant_id), _cart(tenant_id), domain.Product(tenant_id=tenant_id, sku="TEA", version=1)
    foreign = _cart(stranger)
    async with database.transaction([tenant_id, stranger]) as connection:
        await write(connection, [*CARTS.changes([(first, 0), (foreign, 0)]), *PRODUCTS.changes([(product, 0)])])
    changed = replace(first, version=2, currency="EUR")
    another = domain.Product(tenant_id=tenant_id, sku="JAM", version=1)
    for states, error in (
        ([(changed, 7)], ConcurrencyError),  # one that is not as it was read
        ([(changed, 1), (replace(second, version=2), 1)], ConcurrencyError),  # one of several that is not there at all
        ([(changed, 1), (first, 0)], ConcurrencyError),  # one that somebody has just made
        ([(changed, 1), (replace(second, id=foreign.id), 0)], ConflictError),  # one whose id is not to be had
    ):
        with pytest.raises(error):
            async with database.transaction([tenant_id]) as connection:
                await write(connection, [*PRODUCTS.changes([(another, 0)]), *CARTS.changes(states)])
        async with database.transaction([tenant_id]) as connection:
            assert await _stored(connection) == (1, 1)
            assert await CARTS.load(connection, [(tenant_id, first.id)], lock=False) == [first]
    await database.close()


async def test_a_connection_that_was_cut_or_canceled_in_the_middle_is_whole_again_for_the_next_borrower(place: Place) -> None:
    database = await Database.connect(place.url("app"), application="test", size=1)

    async def sleep() -> None:
        async with database.transaction([]) as connection:
            await connection.execute("SELECT pg_sleep(60)")

    for _ in range(3):
        sleeping = asyncio.create_task(sleep())
        await asyncio.sleep(0.05)
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        async with database.acquire() as connection:
            assert not connection.is_in_transaction()
            pid = await connection.fetchval("SELECT pg_backend_pid()")
        admin = await place.as_admin()
        await admin.execute("SELECT pg_terminate_backend($1)", pid)
        await admin.close()
        while not connection.is_closed():
            await asyncio.sleep(0.01)
    async with database.transaction([]) as connection:
        waiting = asyncio.create_task(_answer(database))
        await asyncio.sleep(0.05)
        assert not waiting.done(), "there is one connection, and it is lent"
    assert await waiting == 1
    await database.close()


async def _answer(database: Database) -> int:
    async with database.acquire() as connection:
        answer: int = await connection.fetchval("SELECT 1")
    return answer
