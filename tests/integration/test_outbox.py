"""The outbox is emptied by the slot, and never of what nobody has published."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from libs.common.messaging.schema import SLOTS
from tests.shared.places import Place, Places

INSERT = """INSERT INTO outbox_event (event_id, tenant_id, slot, topic, key, headers, payload)
VALUES (gen_random_uuid(), $1, $2, 't', '', '[]', '{}')"""
CLOSE_A_WINDOW = "UPDATE outbox_cursor SET lo = pg_current_snapshot()"
SLOT = 2


@pytest.fixture
def place(empty: Places) -> Place:
    return empty("cart")


@pytest.fixture
async def app(place: Place) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(place.url("app"))
    yield connection
    await connection.close()


@pytest.fixture
async def relay(place: Place) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(place.url("relay"))
    yield connection
    await connection.close()


async def _add(app: asyncpg.Connection, slot: int = SLOT) -> None:
    tenant = uuid4()
    await app.execute(f"BEGIN; SET LOCAL cartwright.tenant_ids = '{tenant}'")
    await app.execute(INSERT, tenant, slot)


async def _truncate(relay: asyncpg.Connection, slot: int = SLOT) -> bool:
    emptied: bool = await relay.fetchval("SELECT outbox_truncate($1::smallint)", slot)
    return emptied


async def _rows(relay: asyncpg.Connection) -> int:
    count: int = await relay.fetchval("SELECT count(*) FROM outbox_event")
    return count


async def test_a_slot_is_emptied_once_all_of_it_lies_before_the_closed_window(
    app: asyncpg.Connection, relay: asyncpg.Connection
) -> None:
    assert not await _truncate(relay), "there is nothing in it"
    for slot in range(SLOTS):
        await _add(app, slot)
        await app.execute("COMMIT")
    assert not await _truncate(relay), "nobody has published it"
    await relay.execute(CLOSE_A_WINDOW)
    await _add(app, 0)
    await app.execute("COMMIT")
    assert await _truncate(relay)
    assert not await _truncate(relay), "it is empty"
    assert not await _truncate(relay, 0), "half of it came after the window"
    assert await _rows(relay) == SLOTS


async def test_a_row_whose_transaction_began_before_the_window_closed_and_committed_after_it_is_kept(
    app: asyncpg.Connection, relay: asyncpg.Connection
) -> None:
    await _add(app)  # has its transaction id, and is not to be seen yet
    await relay.execute(CLOSE_A_WINDOW)
    assert not await _truncate(relay), "whoever is writing holds the slot"
    await app.execute("COMMIT")
    assert not await _truncate(relay), "its id is below the window's end, and yet it was not in it"
    assert await _rows(relay) == 1
    await relay.execute(CLOSE_A_WINDOW)
    assert await _truncate(relay)


async def test_truncating_waits_for_no_writer_and_loses_no_row_of_writers_at_work(
    place: Place, relay: asyncpg.Connection
) -> None:
    stop = asyncio.Event()
    published: set[object] = set()

    async def write() -> int:
        connection = await asyncpg.connect(place.url("app"))
        written = 0
        while not stop.is_set():
            await _add(connection)
            await asyncio.sleep(0.002)
            await connection.execute("COMMIT")
            written += 1
        await connection.close()
        return written

    writers = [asyncio.create_task(write()) for _ in range(4)]
    emptied = 0
    for _ in range(60):
        await asyncio.sleep(0.02)
        # What a relay does: all that is committed now is published, and then the window closes.
        async with relay.transaction(isolation="repeatable_read"):
            snapshot = await relay.fetchval("SELECT pg_current_snapshot()::text")
            published |= {row["event_id"] for row in await relay.fetch("SELECT event_id FROM outbox_event")}
        await relay.execute("UPDATE outbox_cursor SET lo = $1::text::pg_snapshot", snapshot)
        emptied += await _truncate(relay)
    stop.set()
    written = sum(await asyncio.gather(*writers))
    published |= {row["event_id"] for row in await relay.fetch("SELECT event_id FROM outbox_event")}
    assert len(published) == written > 100
    assert emptied <= 60
