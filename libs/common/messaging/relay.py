"""From the outbox to Kafka: snapshot windows, in order, each chunk acknowledged before the next.

A window is everything committed between two snapshots, `lo` and `hi`; its rows in a fixed order carry the ordinals
1, 2, 3… and with timeline and window number their position. A crash sends the same rows again under the same
positions, so a consumer needs one watermark and no memory. Two relays alive at once do no harm: whoever loses the
compare-and-set on the cursor stops and reads it again.

Inside a window tenants take turns: the order is (round, id), where the round counts the rows of one tenant. A key
belongs to one tenant, and one tenant's rows keep their order, so fairness costs no key its order.
"""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from libs.common.clock import now
from libs.common.database import PLANNING, TRANSIENT, Connection
from libs.common.messaging.broker import Broker
from libs.common.messaging.hints import Hints
from libs.common.messaging.schema import SLOTS
from libs.common.telemetry import Counter, Gauge, Histogram

CHUNK = 2_000
LEASE_SECONDS = 10
ACK_SECONDS = 30
IDLE_POLL_SECONDS = 0.05
HOUSEKEEPING_SECONDS = 60

PUBLISHED = Counter("cartwright_relay_published_total", "Events acknowledged by the broker")
WINDOW_ROWS = Histogram("cartwright_relay_chunk_rows", "Events in one chunk", buckets=(1, 4, 16, 64, 256, 1024, 2048))
ACK_LATENCY = Histogram("cartwright_relay_chunk_seconds", "From reading a chunk to its acknowledgement")
UNPUBLISHED_AGE = Gauge("cartwright_relay_unpublished_age_seconds", "Age of the oldest event of the last chunk when it was sent")

log = structlog.get_logger(__name__)


class MovedError(Exception):
    """Another relay moved the cursor, or holds the lease."""


@dataclass(frozen=True, slots=True)
class Window:
    """An open window: what lies between its snapshots, and how far it has been published."""

    timeline: int
    win: int
    xmax: str
    in_progress: Sequence[str]
    hi: str
    last_n: int


LEASE = """UPDATE outbox_cursor SET owner = $1, lease_until = now() + make_interval(secs => $2),
    timeline = ('x' || lpad(substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), 16, '0'))::bit(64)::bigint
WHERE owner = $1 OR owner IS NULL OR lease_until < now()
RETURNING timeline, win, lo::text, hi::text, last_n"""

RETURN_LEASE = "UPDATE outbox_cursor SET lease_until = now() WHERE owner = $1"

SOMETHING_NEW = """SELECT EXISTS (SELECT FROM outbox_event WHERE txid >= $1::text::xid8)
    OR EXISTS (SELECT FROM outbox_event WHERE txid = ANY ($2::text[]::xid8[]))"""

OPEN = """UPDATE outbox_cursor SET hi = pg_current_snapshot(), win = win + 1, last_n = 0,
    lease_until = now() + make_interval(secs => $3)
WHERE owner = $1 AND win = $2 AND hi IS NULL RETURNING timeline, win, lo::text, hi::text, last_n"""

CLOSE_AND_OPEN = """UPDATE outbox_cursor SET lo = hi, hi = pg_current_snapshot(), win = win + 1, last_n = 0,
    lease_until = now() + make_interval(secs => $4)
WHERE owner = $1 AND win = $2 AND last_n = $3 AND hi IS NOT NULL RETURNING timeline, win, lo::text, hi::text, last_n"""

CLOSE = """UPDATE outbox_cursor SET lo = hi, hi = NULL, last_n = 0, lease_until = now() + make_interval(secs => $4)
WHERE owner = $1 AND win = $2 AND last_n = $3 AND hi IS NOT NULL RETURNING timeline, win, lo::text, hi::text, last_n"""

ADVANCE = """UPDATE outbox_cursor SET last_n = $4, lease_until = now() + make_interval(secs => $5)
WHERE owner = $1 AND win = $2 AND last_n = $3 RETURNING true"""

ROWS = """WITH visible AS (
    SELECT txid, id, tenant_id FROM outbox_event
        WHERE txid >= $1::text::xid8 AND pg_visible_in_snapshot(txid, $3::text::pg_snapshot)
    UNION ALL
    SELECT txid, id, tenant_id FROM outbox_event
        WHERE txid = ANY ($2::text[]::xid8[]) AND txid < $1::text::xid8 AND pg_visible_in_snapshot(txid, $3::text::pg_snapshot)
), fair AS (
    SELECT txid, id, row_number() OVER (PARTITION BY tenant_id ORDER BY id) AS round FROM visible
), numbered AS (
    SELECT txid, id, row_number() OVER (ORDER BY round, id) AS n FROM fair
)
SELECT n, e.event_id, e.topic, e.key, e.headers, e.payload
FROM numbered JOIN outbox_event e USING (txid, id) WHERE n > $4 ORDER BY n LIMIT $5"""


class Relay:
    """The one process that publishes a database's outbox, and its standbys."""

    def __init__(self, url: str, *, database: str, broker: Broker, hints: Hints) -> None:
        self._url = url
        self._database = database
        self._broker = broker
        self._hints = hints
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._producer: AIOKafkaProducer | None = None

    async def run(self) -> None:
        """Publish for ever, whatever happens to the database, the broker or another relay."""
        backoff = 0.05
        try:
            while True:
                try:
                    await self._session()
                except MovedError:
                    await asyncio.sleep(1)
                except (KafkaError, *TRANSIENT, asyncpg.PostgresError) as error:
                    log.warning(
                        "relay.interrupted", error=str(error), retry_in_seconds=backoff, action="nothing is lost; it goes on"
                    )
                    await asyncio.sleep(backoff)
                    backoff = min(backoff * 2, 5)
                else:
                    backoff = 0.05
                finally:
                    await self._drop_producer()
        finally:
            await self._drop_producer()

    async def _session(self) -> None:
        """One connection's life: take the lease, then publish until something breaks."""
        async with self._connection("on") as durable, self._connection("off") as lazy:
            try:
                await self._publish_for_ever(durable, lazy)
            finally:
                try:
                    await asyncio.wait_for(lazy.execute(RETURN_LEASE, self._owner), 1)
                except (*TRANSIENT, asyncpg.PostgresError):
                    log.info("relay.lease_not_returned", action="a standby takes over when it ends")

    @asynccontextmanager
    async def _connection(self, synchronous_commit: str) -> AsyncIterator[Connection]:
        settings = {"application_name": "relay", "enable_seqscan": "off", "synchronous_commit": synchronous_commit, **PLANNING}
        connection = await asyncpg.connect(self._url, command_timeout=30, server_settings=settings)
        try:
            yield connection
        finally:
            connection.terminate()

    async def _publish_for_ever(self, durable: Connection, lazy: Connection) -> None:
        """Opening a window is durable, for one opened twice with other contents would lose rows; all else may be redone."""
        cursor = await self._lease(lazy)
        leased_at = cleaned_at = time.monotonic()
        while True:
            window = _window(cursor) if cursor["hi"] else None
            if window is None:
                hinted = self._hints.outbox.is_set()
                self._hints.outbox.clear()
                if not hinted and not await lazy.fetchval(SOMETHING_NEW, *_bounds(cursor["lo"])):
                    await self._idle()
                    if time.monotonic() - leased_at > LEASE_SECONDS / 3:
                        cursor, leased_at = await self._lease(lazy), time.monotonic()
                    if time.monotonic() - cleaned_at > HOUSEKEEPING_SECONDS:
                        cleaned_at = time.monotonic()
                        await _clean(lazy)
                    continue
                cursor = await self._move(durable, OPEN, cursor["win"], LEASE_SECONDS)
                window = _window(cursor)
            last_n = await self._publish_window(lazy, window)
            leased_at = time.monotonic()
            if self._hints.outbox.is_set():
                self._hints.outbox.clear()
                cursor = await self._move(durable, CLOSE_AND_OPEN, window.win, last_n, LEASE_SECONDS)
            else:
                cursor = await self._move(lazy, CLOSE, window.win, last_n, LEASE_SECONDS)

    async def _lease(self, connection: Connection) -> asyncpg.Record:
        cursor = await connection.fetchrow(LEASE, self._owner, LEASE_SECONDS)
        if cursor is None:
            raise MovedError
        return cursor

    async def _move(self, connection: Connection, sql: str, *arguments: object) -> asyncpg.Record:
        """A compare-and-set on the cursor."""
        cursor = await connection.fetchrow(sql, self._owner, *arguments)
        if cursor is None:
            raise MovedError
        return cursor

    async def _idle(self) -> None:
        try:
            await asyncio.wait_for(self._hints.outbox.wait(), IDLE_POLL_SECONDS)
        except TimeoutError:
            return

    async def _publish_window(self, connection: Connection, window: Window) -> int:
        """Send every row of the window that is not yet acknowledged; answers the last ordinal."""
        last_n = window.last_n
        while True:
            started = time.perf_counter()
            rows = await connection.fetch(ROWS, window.xmax, window.in_progress, window.hi, last_n, CHUNK)
            if rows:
                await self._send(window, rows)
                ACK_LATENCY.observe(time.perf_counter() - started)
                PUBLISHED.inc(len(rows))
                WINDOW_ROWS.observe(len(rows))
                UNPUBLISHED_AGE.set(max(0.0, now().timestamp() - _made_at(rows[0]["event_id"])))
            if len(rows) < CHUNK:
                return last_n  # closing the window compares with this ordinal; the rows after it need no write of their own
            if not await connection.fetchval(ADVANCE, self._owner, window.win, last_n, rows[-1]["n"], LEASE_SECONDS):
                raise MovedError
            last_n = rows[-1]["n"]

    async def _send(self, window: Window, rows: Sequence[asyncpg.Record]) -> None:
        """One record batch a partition, all acknowledged before this returns: never two unacknowledged of one key."""
        producer = await self._started_producer()
        position = f"{self._database}/{window.timeline}.{window.win}."
        batches: dict[tuple[str, int], Any] = {}
        sent: list[asyncio.Future[Any]] = []
        for row in rows:
            topic = self._broker.topic(row["topic"])
            partition = (murmur2(row["key"]) & 0x7FFFFFFF) % await self._broker.partition_count(producer, topic)
            headers = [(name, value.encode()) for name, value in orjson.loads(row["headers"])]
            headers.append(("ce_relayposition", f"{position}{row['n']}".encode()))
            batch = batches.get((topic, partition)) or batches.setdefault((topic, partition), producer.create_batch())
            if batch.append(key=row["key"], value=row["payload"], timestamp=None, headers=headers) is None:
                batch.close()
                await self._await_all([*sent, await producer.send_batch(batch, topic, partition=partition)])
                sent.clear()
                batch = batches[topic, partition] = producer.create_batch()
                batch.append(key=row["key"], value=row["payload"], timestamp=None, headers=headers)
        for (topic, partition), batch in batches.items():
            batch.close()
            sent.append(await producer.send_batch(batch, topic, partition=partition))
        await self._await_all(sent)

    async def _await_all(self, sent: Sequence["asyncio.Future[Any]"]) -> None:
        async with asyncio.timeout(ACK_SECONDS):
            await asyncio.gather(*sent)

    async def _started_producer(self) -> AIOKafkaProducer:
        if self._producer is None:
            self._producer = await self._broker.producer()
        return self._producer

    async def _drop_producer(self) -> None:
        """After any failure: an idempotent producer that saw one refused batch is poisoned for good."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            await asyncio.wait_for(producer.stop(), 2)
        except (TimeoutError, KafkaError):
            log.info("relay.producer_abandoned")


async def _clean(connection: Connection) -> None:
    """Empty the slots that are neither this hour's nor the last one's, and forget idempotency keys of age."""
    hour = int(time.time()) // 3600
    for slot in {*range(SLOTS)} - {hour % SLOTS, (hour - 1) % SLOTS}:
        await connection.fetchval("SELECT outbox_truncate($1::smallint)", slot)
    await connection.execute("DELETE FROM idempotency_key WHERE claimed_at < now() - interval '72 hours'")


def _made_at(event_id: Any) -> float:
    """A UUIDv7 begins with the milliseconds of its making."""
    return int(event_id.int >> 80) / 1000


def _bounds(snapshot: str) -> tuple[str, list[str]]:
    """`xmin:xmax:xip,…` as its xmax and the transactions that were under way."""
    _, xmax, in_progress = snapshot.split(":")
    return xmax, [xid for xid in in_progress.split(",") if xid]


def _window(cursor: asyncpg.Record) -> Window:
    xmax, in_progress = _bounds(cursor["lo"])
    return Window(cursor["timeline"], cursor["win"], xmax, in_progress, cursor["hi"], cursor["last_n"])
