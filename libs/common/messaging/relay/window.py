"""The rows of a window, in the one order they have: tenants take turns.

Most windows hold a few rows, which come with the window's opening. A larger one, and one that was left open by whoever
died over it, is ranked once by a server-side cursor on a session of its own, and its next chunk is read while the last
one is on its way.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from libs.common.database import Connection

CHUNK = 2_000


@dataclass(frozen=True, slots=True)
class Window:
    """What lies between two snapshots: its rows and their order never change."""

    timeline: int
    win: int
    xmax: str
    """Where it begins: with this transaction,"""
    in_progress: Sequence[str]
    """and with those, which were under way."""
    hi: str
    last_n: int
    """How far it has been published."""
    rows: Sequence[Any] | None = None
    """All of them, if they came with its opening."""


def beyond(xmax: str, in_progress: str, columns: str) -> str:
    """What a snapshot did not see: later transactions, and those that were under way."""
    return f"""SELECT {columns} FROM outbox_event WHERE txid >= {xmax}::text::xid8
    UNION ALL
    SELECT {columns} FROM outbox_event
        WHERE txid = ANY ({in_progress}::text[]::xid8[]) AND txid < {xmax}::text::xid8"""  # noqa: S608 - our own constants


FAIR = """fair AS (
    SELECT *, row_number() OVER (PARTITION BY tenant_id ORDER BY id) AS round FROM visible
), numbered AS (
    SELECT *, row_number() OVER (ORDER BY round, id) AS n FROM fair
)"""

# Ranked over narrow rows; the wide ones are fetched one by one in that order, by the slot's index: any other join would
# read rows that were published long ago, or sort payloads. LATERAL with LIMIT leaves the planner no other.
ROWS = f"""WITH found AS (
    {beyond("$1", "$2", "slot, txid, id, tenant_id")}
), visible AS (
    SELECT * FROM found WHERE pg_visible_in_snapshot(txid, $3::text::pg_snapshot)
), {FAIR}
SELECT n, numbered.id, e.event_id, e.tenant_id, e.topic, e.key, e.headers, e.payload
FROM numbered CROSS JOIN LATERAL (
    SELECT * FROM outbox_event e WHERE e.slot = numbered.slot AND e.txid = numbered.txid AND e.id = numbered.id LIMIT 1
) e
WHERE n > $4 ORDER BY round, numbered.id"""  # noqa: S608 - our own constants

Reader = Callable[[], Awaitable[Connection]]
"""Answers the session that large windows are read on."""


async def chunks(window: Window, reader: Reader) -> AsyncGenerator[Sequence[Any], None]:
    """The rows not yet published, up to 2,000 at a time. One chunk is always being read while the one before it is in use."""
    session = await reader()
    await session.execute("BEGIN READ ONLY")
    cursor = await session.cursor(ROWS, window.xmax, window.in_progress, window.hi, window.last_n)
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
