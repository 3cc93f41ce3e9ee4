"""The cursor: one row that says what is published. Every move of it is a compare-and-set, and whoever loses one stops.

Opening a window is committed synchronously, for one opened twice with other contents would lose rows; so is setting rows
aside. All else may be done again.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from libs.common.database import PLANNING, Connection
from libs.common.messaging.relay.publisher import Refusal
from libs.common.messaging.schema import KEEP_DECIDED

CHUNK = 2_000
LEASE_SECONDS = 10
KEEP_IDEMPOTENCY = "72 hours"

TIMELINE = "('x' || lpad(substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), 16, '0'))::bit(64)::bigint"
"""Rises with each promotion of a standby. A window keeps the one it was opened under: its positions never change."""

STATE = f"""timeline, win, lo::text, hi::text, last_n,
    (SELECT count(*) > {CHUNK} FROM (
        SELECT FROM outbox_event e WHERE e.txid >= pg_snapshot_xmax(lo) LIMIT {CHUNK + 1}) AS beyond) AS is_large"""  # noqa: S608 - our own constants

LEASE = f"""UPDATE outbox_cursor SET owner = $1, lease_until = clock_timestamp() + make_interval(secs => $2),
    timeline = CASE WHEN hi IS NULL THEN {TIMELINE} ELSE timeline END
WHERE owner = $1 OR owner IS NULL OR lease_until < clock_timestamp() RETURNING {STATE}"""  # noqa: S608

LEASE_LEFT = "SELECT extract(epoch FROM lease_until - clock_timestamp())::float8 FROM outbox_cursor"

RENEW = """UPDATE outbox_cursor SET lease_until = clock_timestamp() + make_interval(secs => $4)
WHERE owner = $1 AND win = $2 AND last_n = $3 RETURNING true"""

RETURN_LEASE = "UPDATE outbox_cursor SET lease_until = clock_timestamp() WHERE owner = $1"

SOMETHING_NEW = """SELECT EXISTS (SELECT FROM outbox_event WHERE txid >= $1::text::xid8)
    OR EXISTS (SELECT FROM outbox_event WHERE txid = ANY ($2::text[]::xid8[]))"""

OPEN = f"""UPDATE outbox_cursor SET hi = pg_current_snapshot(), win = win + 1, last_n = 0, timeline = {TIMELINE},
    lease_until = clock_timestamp() + make_interval(secs => $4)
WHERE owner = $1 AND win = $2 AND last_n = $3 AND hi IS NULL RETURNING {STATE}"""  # noqa: S608

CLOSE_AND_OPEN = f"""UPDATE outbox_cursor SET lo = hi, hi = pg_current_snapshot(), win = win + 1, last_n = 0,
    timeline = {TIMELINE}, lease_until = clock_timestamp() + make_interval(secs => $4)
WHERE owner = $1 AND win = $2 AND last_n = $3 AND hi IS NOT NULL RETURNING {STATE}"""  # noqa: S608

CLOSE = f"""UPDATE outbox_cursor SET lo = hi, hi = NULL, last_n = 0,
    lease_until = clock_timestamp() + make_interval(secs => $4)
WHERE owner = $1 AND win = $2 AND last_n = $3 AND hi IS NOT NULL RETURNING {STATE}"""  # noqa: S608

ADVANCE = """UPDATE outbox_cursor SET last_n = $5, lease_until = clock_timestamp() + make_interval(secs => $4)
WHERE owner = $1 AND win = $2 AND last_n = $3 AND hi IS NOT NULL RETURNING true"""

SET_ASIDE = """INSERT INTO outbox_parked
    (timeline, win, n, id, event_id, tenant_id, topic, key, headers, payload, reason, detail)
SELECT $1, $2, * FROM unnest($3::bigint[], $4::bigint[], $5::uuid[], $6::uuid[], $7::text[], $8::bytea[], $9::bytea[],
    $10::bytea[], $11::text[], $12::text[])"""

KEYS_SET_ASIDE = "SELECT DISTINCT topic, key FROM outbox_parked WHERE state IN ('parked', 'replaying', 'discarding')"

COUNT_SET_ASIDE = "SELECT count(*) FROM outbox_parked WHERE state IN ('parked', 'replaying', 'discarding')"

DECIDED = "SELECT EXISTS (SELECT FROM outbox_parked WHERE state IN ('replaying', 'discarding'))"

FIRST_USE = "INSERT INTO outbox_topic (topic, partition_count) VALUES ($1, $2) ON CONFLICT DO NOTHING"

PARTITION_COUNT = "SELECT partition_count FROM outbox_topic WHERE topic = $1"

FORGET_DECIDED = f"""DELETE FROM outbox_parked
WHERE state IN ('replayed', 'discarded') AND decided_at < now() - interval '{KEEP_DECIDED}'"""  # noqa: S608 - our own constant

EXPIRE = f"DELETE FROM idempotency_key WHERE claimed_at < now() - interval '{KEEP_IDEMPOTENCY}'"  # noqa: S608


class MovedError(Exception):
    """Another relay moved the cursor, or holds the lease."""


@dataclass(frozen=True, slots=True)
class Window:
    """What lies between two snapshots: its rows and their order never change."""

    timeline: int
    win: int
    xmax: str
    in_progress: Sequence[str]
    hi: str
    last_n: int
    """How far it has been published."""
    is_large: bool
    """Probably more than a chunk."""


class Cursor:
    """The cursor in the hands of one relay."""

    def __init__(self, durable: Connection, lazy: Connection, owner: str) -> None:
        self._durable, self._lazy, self._owner = durable, lazy, owner
        self._state: Any = None
        self._last_n = 0

    @property
    def window(self) -> Window | None:
        """The open window."""
        if self._state["hi"] is None:
            return None
        state = self._state
        return Window(state["timeline"], state["win"], *_bounds(state["lo"]), state["hi"], self._last_n, state["is_large"])

    async def lease(self) -> float:
        """Take or keep the lease, and read where things stand; answers 0, or in how many seconds it may be free."""
        state = await self._lazy.fetchrow(LEASE, self._owner, LEASE_SECONDS)
        if state is None:
            left: float = await self._lazy.fetchval(LEASE_LEFT)
            return max(0.01, left)
        self._found(state)
        return 0.0

    async def renew(self) -> None:
        """Keep the lease while something takes long."""
        if not await self._lazy.fetchval(RENEW, *self._here()):
            raise MovedError

    async def give_back(self) -> None:
        """Let a standby take over at once."""
        await self._lazy.execute(RETURN_LEASE, self._owner)

    async def something_new(self) -> bool:
        """Whether anything lies beyond the last window; seen or not, so a window may turn out empty."""
        new: bool = await self._lazy.fetchval(SOMETHING_NEW, *_bounds(self._state["lo"]))
        return new

    async def open(self) -> None:
        """Open a window on everything committed by now."""
        await self._move(self._durable, OPEN)

    async def close(self) -> None:
        """All of the window is published or set aside."""
        await self._move(self._lazy, CLOSE)

    async def close_and_open(self) -> None:
        """Both in one write."""
        await self._move(self._durable, CLOSE_AND_OPEN)

    async def advance(self, last_n: int, refusals: Sequence[Refusal] = ()) -> None:
        """Everything up to this ordinal is published, except what is set aside with it."""
        if refusals:
            async with self._durable.transaction():
                await self._advance(self._durable, last_n)
                await self._set_aside(refusals)
        else:
            await self._advance(self._lazy, last_n)
        self._last_n = last_n

    async def keys_set_aside(self) -> set[tuple[str, bytes]]:
        """The (topic, key) whose later rows have to wait."""
        return {(row["topic"], row["key"]) for row in await self._lazy.fetch(KEYS_SET_ASIDE)}

    async def count_set_aside(self) -> int:
        """How many rows wait for an operator."""
        count: int = await self._lazy.fetchval(COUNT_SET_ASIDE)
        return count

    async def settle(self) -> bool:
        """Carry out what operators decided; only between windows. Answers whether there was anything."""
        if not await self._lazy.fetchval(DECIDED):
            return False
        await self._durable.execute("SELECT outbox_settle($1)", self._owner)
        return True

    async def clean(self) -> int:
        """Empty the slots that are done with, forget old idempotency keys and decisions; answers the seconds a slot lasts."""
        slot_seconds: int = await self._lazy.fetchval("SELECT slot_seconds FROM outbox_rotate()")
        await self._lazy.execute(EXPIRE)
        await self._lazy.execute(FORGET_DECIDED)
        return slot_seconds

    async def first_partition_count(self, topic: str, count: int) -> int:
        """How many partitions a topic had when it was first published to; if that is now, this many."""
        await self._durable.execute(FIRST_USE, topic, count)
        first: int = await self._durable.fetchval(PARTITION_COUNT, topic)
        return first

    def _here(self) -> tuple[str, int, int, int]:
        return self._owner, self._state["win"], self._last_n, LEASE_SECONDS

    async def _advance(self, connection: Connection, last_n: int) -> None:
        if not await connection.fetchval(ADVANCE, *self._here(), last_n):
            raise MovedError

    async def _move(self, connection: Connection, sql: str) -> None:
        state = await connection.fetchrow(sql, *self._here())
        if state is None:
            raise MovedError
        self._found(state)

    def _found(self, state: Any) -> None:
        self._state, self._last_n = state, state["last_n"]

    async def _set_aside(self, refusals: Sequence[Refusal]) -> None:
        rows = [refusal.row for refusal in refusals]
        columns = ("n", "id", "event_id", "tenant_id", "topic", "key", "headers", "payload")
        await self._durable.execute(
            SET_ASIDE,
            self._state["timeline"],
            self._state["win"],
            *([row[column] for row in rows] for column in columns),
            [refusal.reason for refusal in refusals],
            [refusal.detail for refusal in refusals],
        )


@asynccontextmanager
async def connection(url: str, *, synchronous_commit: str, statement_seconds: int = 30) -> AsyncIterator[Connection]:
    """One of a relay's sessions, on a server that can be written to. It holds nothing open for long."""
    opened = await asyncpg.connect(
        url,
        timeout=10,
        command_timeout=statement_seconds + 5,
        target_session_attrs="read-write",
        server_settings={
            "application_name": "relay",
            "enable_seqscan": "off",
            "synchronous_commit": synchronous_commit,
            "lock_timeout": "5s",
            "statement_timeout": f"{statement_seconds}s",
            "idle_in_transaction_session_timeout": "60s",
            **PLANNING,
        },
    )
    try:
        yield opened
    finally:
        opened.terminate()


def _bounds(snapshot: str) -> tuple[str, list[str]]:
    """`xmin:xmax:xip,…` as its xmax and the transactions that were under way."""
    _, xmax, in_progress = snapshot.split(":")
    return xmax, [xid for xid in in_progress.split(",") if xid]
