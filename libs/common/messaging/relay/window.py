"""The rows of a window, chunk by chunk, in the one order they have: tenants take turns.

Most windows hold a few rows and cost one query. A large one is ranked once, by a server-side cursor on a session of its
own, and its next chunk is read while the last one is on its way.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from libs.common.database import Connection
from libs.common.messaging.relay.cursor import CHUNK, Window

# Ranked over narrow rows; the wide ones are fetched one by one in that order, by the slot's index: any other join would
# read rows that were published long ago, or sort payloads. LATERAL with LIMIT leaves the planner no other.
ROWS = """WITH visible AS (
    SELECT slot, txid, id, tenant_id FROM outbox_event
        WHERE txid >= $1::text::xid8 AND pg_visible_in_snapshot(txid, $3::text::pg_snapshot)
    UNION ALL
    SELECT slot, txid, id, tenant_id FROM outbox_event
        WHERE txid = ANY ($2::text[]::xid8[]) AND txid < $1::text::xid8 AND pg_visible_in_snapshot(txid, $3::text::pg_snapshot)
), fair AS (
    SELECT slot, txid, id, row_number() OVER (PARTITION BY tenant_id ORDER BY id) AS round FROM visible
), numbered AS (
    SELECT slot, txid, id, round, row_number() OVER (ORDER BY round, id) AS n FROM fair
)
SELECT n, numbered.id, e.event_id, e.tenant_id, e.topic, e.key, e.headers, e.payload
FROM numbered CROSS JOIN LATERAL (
    SELECT * FROM outbox_event e WHERE e.slot = numbered.slot AND e.txid = numbered.txid AND e.id = numbered.id LIMIT 1
) e
WHERE n > $4 ORDER BY round, numbered.id"""

SOME_ROWS = f"{ROWS} LIMIT {CHUNK + 1}"

Reader = Callable[[], Awaitable[Connection]]
"""Answers the session that large windows are read on."""


async def chunks(window: Window, connection: Connection, reader: Reader) -> AsyncGenerator[Sequence[Any], None]:
    """The rows not yet published, up to 2,000 at a time."""
    last_n = window.last_n
    if not window.is_large:
        rows = await connection.fetch(SOME_ROWS, window.xmax, window.in_progress, window.hi, last_n)
        if rows:
            yield rows[:CHUNK]
        if len(rows) <= CHUNK:
            return
        last_n = rows[CHUNK - 1]["n"]
    async for rows in _by_cursor(window, await reader(), last_n):
        yield rows


async def _by_cursor(window: Window, session: Connection, last_n: int) -> AsyncGenerator[Sequence[Any], None]:
    """One chunk is always being read while the one before it is in use."""
    await session.execute("BEGIN READ ONLY")
    cursor = await session.cursor(ROWS, window.xmax, window.in_progress, window.hi, last_n)
    following = asyncio.ensure_future(cursor.fetch(CHUNK))
    try:
        while rows := await following:
            following = asyncio.ensure_future(cursor.fetch(CHUNK))
            yield rows
    finally:
        if not following.done():
            following.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await following
    await session.execute("COMMIT")
