"""The cursor: one row that says what is published. Every move of it is a compare-and-set, and whoever loses one stops.

Opening a window is committed synchronously, for one opened twice with other contents would lose rows; so is setting rows
aside. All else may be done again: a window is closed when the next one opens, or when none does, and whoever dies before
that has it sent again.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from libs.common.database import PLANNING, Connection, opened
from libs.common.messaging.relay.publisher import Refusal
from libs.common.messaging.relay.window import CHUNK, FAIR, Window, beyond
from libs.common.messaging.schema import KEEP_DECIDED

LEASE_SECONDS = 10
KEEP_IDEMPOTENCY = "72 hours"

SERVERS = "('x' || lpad(substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), 16, '0'))::bit(64)::bigint"
"""The server's own timeline rises with each promotion of a standby."""
TIMELINE = f"greatest(timeline_floor, {SERVERS})"
"""The relay's, which also rises when a restored database is recognised (see `furthest`). A window keeps the one it was opened
under: its positions never change."""

STATE = "timeline, win, lo::text, hi::text, last_n"

LOCK_CLASS = 0x6F757462
"""The first half of our locks' keys; the second is of the owner's name."""
BE_KNOWN = f"SELECT pg_advisory_lock_shared({LOCK_CLASS}, hashtext($1))"
IS_DEAD = f"pg_try_advisory_xact_lock({LOCK_CLASS}, hashtext(owner))"
"""An owner holds its lock for as long as its connection is there, and a process that dies takes that with it at once."""

_LEASE = f"""UPDATE outbox_cursor SET owner = $1, lease_until = clock_timestamp() + make_interval(secs => $2),
    timeline = CASE WHEN hi IS NULL THEN {TIMELINE} ELSE timeline END
WHERE owner = $1 OR owner IS NULL OR lease_until < clock_timestamp()"""  # noqa: S608
LEASE, INHERIT = f"{_LEASE} RETURNING {STATE}", f"{_LEASE} OR {IS_DEAD} RETURNING {STATE}"
"""To inherit is to take a lease of somebody who is dead, too."""

LEASE_LEFT = "SELECT extract(epoch FROM lease_until - clock_timestamp())::float8 FROM outbox_cursor"

RENEW = """UPDATE outbox_cursor SET lease_until = clock_timestamp() + make_interval(secs => $4)
WHERE owner = $1 AND win = $2 AND last_n = $3 RETURNING true"""

BEGIN_TIMELINE = f"""UPDATE outbox_cursor SET timeline_floor = $4 + 1,
    timeline = CASE WHEN hi IS NULL THEN $4 + 1 ELSE timeline END
WHERE owner = $1 AND win = $2 AND last_n = $3 AND ($4::bigint, $5::bigint) > (greatest(timeline, {TIMELINE}), win)
RETURNING {STATE}"""  # noqa: S608

TOPICS = "SELECT topic FROM outbox_topic"

RETURN_LEASE = "UPDATE outbox_cursor SET lease_until = clock_timestamp() WHERE owner = $1"

SOMETHING_NEW = """SELECT EXISTS (SELECT FROM outbox_event WHERE txid >= $1::text::xid8)
    OR EXISTS (SELECT FROM outbox_event WHERE txid = ANY ($2::text[]::xid8[]))"""


def _opening(move: str) -> str:
    """One round trip: the window opens if there is anything for it, and its rows come with the answer if they are few.

    All parts of a statement see one snapshot, which is the one that `pg_current_snapshot()` answers. So what is found here
    and lies between the two snapshots stored here is what will be found again if this relay dies. No row is answered if
    somebody else moved the cursor, and one without a window if nothing is new.
    """
    return f"""WITH found AS MATERIALIZED (
    {beyond("$5", "$6", "*")} LIMIT {CHUNK + 1}
), moved AS (
    {move} AND EXISTS (SELECT FROM found)
    RETURNING timeline, win, lo, hi, last_n, (SELECT count(*) FROM found) > {CHUNK} AS is_large
), visible AS (
    SELECT found.* FROM found JOIN moved
        ON NOT is_large AND pg_visible_in_snapshot(txid, hi) AND NOT pg_visible_in_snapshot(txid, lo)
), {FAIR}
SELECT moved.timeline, moved.win, moved.lo::text, moved.hi::text, moved.last_n, moved.is_large,
    n, id, event_id, tenant_id, topic, key, headers, payload
FROM outbox_cursor here LEFT JOIN moved ON true LEFT JOIN numbered ON true
WHERE here.owner = $1 AND here.win = $2 AND here.last_n = $3 ORDER BY n"""  # noqa: S608


OPEN = _opening(f"""UPDATE outbox_cursor SET hi = pg_current_snapshot(), win = win + 1, last_n = 0, timeline = {TIMELINE},
    lease_until = clock_timestamp() + make_interval(secs => $4)
WHERE owner = $1 AND win = $2 AND last_n = $3 AND hi IS NULL""")  # noqa: S608

CLOSE_AND_OPEN = _opening(f"""UPDATE outbox_cursor SET lo = hi, hi = pg_current_snapshot(), win = win + 1, last_n = 0,
    timeline = {TIMELINE}, lease_until = clock_timestamp() + make_interval(secs => $4)
WHERE owner = $1 AND win = $2 AND last_n = $3 AND hi IS NOT NULL""")  # noqa: S608

CLOSE = f"""UPDATE outbox_cursor SET lo = hi, hi = NULL, last_n = 0,
    lease_until = clock_timestamp() + make_interval(secs => $4)
WHERE owner = $1 AND win = $2 AND last_n = $3 AND hi IS NOT NULL RETURNING {STATE}"""  # noqa: S608

ADVANCE = """UPDATE outbox_cursor SET last_n = $5, lease_until = clock_timestamp() + make_interval(secs => $4)
WHERE owner = $1 AND win = $2 AND last_n = $3 AND hi IS NOT NULL RETURNING true"""

PARK = """INSERT INTO outbox_parked
    (timeline, win, n, id, event_id, tenant_id, topic, key, headers, payload, reason, detail)
SELECT $1, $2, * FROM unnest($3::bigint[], $4::bigint[], $5::uuid[], $6::uuid[], $7::text[], $8::bytea[], $9::bytea[],
    $10::bytea[], $11::text[], $12::text[])"""

PARKED_KEYS = "SELECT DISTINCT topic, key FROM outbox_parked WHERE state IN ('parked', 'replaying', 'discarding')"

PARKED_COUNT = "SELECT count(*) FROM outbox_parked WHERE state IN ('parked', 'replaying', 'discarding')"

DECIDED = "SELECT EXISTS (SELECT FROM outbox_parked WHERE state IN ('replaying', 'discarding'))"

FIRST_USE = "INSERT INTO outbox_topic (topic, partition_count) VALUES ($1, $2) ON CONFLICT DO NOTHING"

PARTITION_COUNT = "SELECT partition_count FROM outbox_topic WHERE topic = $1"

FORGET_DECIDED = f"""DELETE FROM outbox_parked
WHERE state IN ('replayed', 'discarded') AND decided_at < now() - interval '{KEEP_DECIDED}'"""  # noqa: S608 - our own constant

EXPIRE = f"DELETE FROM idempotency_key WHERE claimed_at < now() - interval '{KEEP_IDEMPOTENCY}'"  # noqa: S608


class MovedError(Exception):
    """Another relay moved the cursor, or holds the lease."""


class Cursor:
    """The cursor in the hands of one relay."""

    def __init__(self, durable: Connection, lazy: Connection, owner: str) -> None:
        self._durable, self._lazy, self._owner = durable, lazy, owner
        self._lease = LEASE
        self._state: Any = None
        self._last_n = 0
        self._is_done = False
        """All of the open window is published or parked, which the row says only when it closes."""

    @property
    def window(self) -> Window | None:
        """The window that was found open: whoever opened it did not close it, and its rows are to be sent again."""
        if self._state["hi"] is None or self._is_done:
            return None
        return self._window(None)

    async def be_known(self) -> None:
        """Be known to live for as long as the connection is there, and know it of others. A pool may not lend it to another."""
        await self._durable.execute(BE_KNOWN, self._owner)
        self._lease = INHERIT

    async def lease(self) -> float:
        """Take or keep the lease, and read where things stand; answers 0, or in how many seconds it may be free."""
        state = await self._lazy.fetchrow(self._lease, self._owner, LEASE_SECONDS)
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

    async def topics(self) -> list[str]:
        """Every topic that was ever published to."""
        return [row["topic"] for row in await self._lazy.fetch(TOPICS)]

    async def begin_timeline_above(self, reached: tuple[int, int]) -> bool:
        """If windows up to this one are used that this database knows nothing of, it was restored: number anew, above them."""
        state = await self._durable.fetchrow(BEGIN_TIMELINE, self._owner, self._state["win"], self._last_n, *reached)
        if state is not None:
            self._found(state)
        return state is not None

    async def something_new(self) -> bool:
        """Whether anything was committed after the last window opened: for half of what it costs to try and open one."""
        new: bool = await self._lazy.fetchval(SOMETHING_NEW, *_bounds(self._reached))
        return new

    async def open(self) -> Window | None:
        """Open a window on everything committed by now, which closes the last one; none if there is nothing new."""
        sql = OPEN if self._state["hi"] is None else CLOSE_AND_OPEN
        rows = await self._durable.fetch(sql, *self._here(), *_bounds(self._reached))
        if not rows:
            raise MovedError
        state = rows[0]
        if state["win"] is None:
            return None
        self._found(state)
        if state["is_large"]:
            return self._window(None)
        return self._window(rows if state["n"] else ())

    def done(self) -> None:
        """All of the window is published or parked."""
        self._is_done = True

    async def close(self) -> None:
        """Write down that the window is done."""
        if not self._is_done:
            return
        state = await self._lazy.fetchrow(CLOSE, *self._here())
        if state is None:
            raise MovedError
        self._found(state)

    async def advance(self, last_n: int, refusals: Sequence[Refusal] = ()) -> None:
        """Everything up to this ordinal is published, except what is parked with it."""
        if refusals:
            async with self._durable.transaction():
                await self._advance(self._durable, last_n)
                await self._park(refusals)
        else:
            await self._advance(self._lazy, last_n)
        self._last_n = last_n

    async def parked_keys(self) -> set[tuple[str, bytes]]:
        """The (topic, key) whose later rows have to wait."""
        return {(row["topic"], row["key"]) for row in await self._lazy.fetch(PARKED_KEYS)}

    async def parked_count(self) -> int:
        """How many rows wait for an operator."""
        count: int = await self._lazy.fetchval(PARKED_COUNT)
        return count

    async def settle(self) -> bool:
        """Carry out what operators decided; only between windows. Answers whether there was anything."""
        if not await self._lazy.fetchval(DECIDED):
            return False
        await self.close()
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

    @property
    def _reached(self) -> str:
        """The snapshot up to which everything is published or parked."""
        reached: str = self._state["hi"] or self._state["lo"]
        return reached

    def _window(self, rows: Sequence[Any] | None) -> Window:
        state = self._state
        return Window(state["timeline"], state["win"], *_bounds(state["lo"]), state["hi"], self._last_n, rows)

    def _found(self, state: Any) -> None:
        self._state, self._last_n, self._is_done = state, state["last_n"], False

    async def _park(self, refusals: Sequence[Refusal]) -> None:
        rows = [refusal.row for refusal in refusals]
        columns = ("n", "id", "event_id", "tenant_id", "topic", "key", "headers", "payload")
        await self._durable.execute(
            PARK,
            self._state["timeline"],
            self._state["win"],
            *([row[column] for row in rows] for column in columns),
            [refusal.reason for refusal in refusals],
            [refusal.detail for refusal in refusals],
        )


@asynccontextmanager
async def connection(url: str, *, synchronous_commit: str, statement_seconds: int = 30) -> AsyncIterator[Connection]:
    """One of a relay's sessions, on a server that can be written to. It holds nothing open for long."""
    session = await opened(
        url,
        timeout=10,
        command_timeout=statement_seconds + 5,
        target_session_attrs="read-write",
        settings={
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
        yield session
    finally:
        session.terminate()


def _bounds(snapshot: str) -> tuple[str, list[str]]:
    """`xmin:xmax:xip,…` as its xmax and the transactions that were under way."""
    _, xmax, in_progress = snapshot.split(":")
    return xmax, [xid for xid in in_progress.split(",") if xid]
