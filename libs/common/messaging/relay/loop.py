"""The relay's life: wait for the lease, publish window after window, and begin again whatever happened."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg
import structlog
from aiokafka.errors import KafkaError

from libs.common.addresses import address
from libs.common.database import TRANSIENT, Connection
from libs.common.messaging.broker import DENIED, Broker, BrokerRefusedError
from libs.common.messaging.headers import traceparent_of
from libs.common.messaging.hints import Hints
from libs.common.messaging.relay.backlog import Backlog
from libs.common.messaging.relay.cursor import LEASE_SECONDS, Cursor, MovedError, connection
from libs.common.messaging.relay.furthest import furthest
from libs.common.messaging.relay.publisher import Publisher, Refusal, TopicRefusedError, behind, key_of
from libs.common.messaging.relay.window import CHUNK, Reader, Window, chunks
from libs.common.pulse import PULSE
from libs.common.telemetry import Counter, Gauge, Histogram
from libs.common.telemetry.messages import chunk_span

IDLE_POLL_SECONDS, DEAF_POLL_SECONDS = 1.0, 0.1
"""Hints say what is new at once; this is for one that got lost, and for when none arrive."""
REST_SECONDS = 0.015
"""After a window the relay rests for as long as that took, at most so long. What is committed meanwhile goes out together:
on a busy machine windows become fewer and fuller, here and for every consumer, and on an idle one there is hardly a rest."""
STANDBY_POLL_SECONDS = 0.5
SETTLE_SECONDS = 1.0
CLEAN_SECONDS = 60.0
FIRST_BACKOFF_SECONDS, LAST_BACKOFF_SECONDS = 0.05, 5.0
LARGE_WINDOW_SECONDS = 600

PUBLISHED = Counter("cartwright_relay_published_total", "Events acknowledged by the broker")
WINDOW_ROWS = Histogram("cartwright_relay_window_rows", "Events in one window", buckets=(1, 4, 16, 64, 256, 1024, 4096, 65536))
CHUNK_ROWS = Histogram("cartwright_relay_chunk_rows", "Events in one chunk", buckets=(1, 4, 16, 64, 256, 1024, 2048))
CHUNK_LATENCY = Histogram("cartwright_relay_chunk_seconds", "From having a chunk to its acknowledgement")
PARKED = Counter("cartwright_relay_set_aside_total", "Events parked", ["topic", "reason"])
WAITING = Gauge("cartwright_relay_set_aside_rows", "Parked events that wait for an operator")
TOPIC_REFUSED = Counter("cartwright_relay_topic_refused_total", "Times that a topic could not be published to", ["topic"])
INTERRUPTED = Counter("cartwright_relay_interrupted_total", "Times that the relay began again after a failure")
RESTORED = Counter("cartwright_relay_restored_total", "Times that a database was found restored, and began a timeline of its own")
HOLDS_LEASE = Gauge("cartwright_relay_lease", "1 while this process publishes, 0 while it stands by")

R = TypeVar("R")

log = structlog.get_logger(__name__)


class Relay:
    """The one process that publishes a database's outbox, and its standbys."""

    def __init__(self, url: str, *, database: str, broker: Broker, hints: Hints, topics: Sequence[str] = ()) -> None:
        """`topics` are those it may publish to; what it has published to is known by the database, unless that was restored."""
        self._url = url
        self._database = database
        self._broker, self._topics = broker, topics
        self._hints = hints
        # Containers share process numbers and sometimes names; no two processes may take each other's lease for theirs.
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._publisher = Publisher(broker)
        self._large: Connection | None = None
        self._blocked: set[tuple[str, bytes]] = set()
        """The keys with parked rows. Nobody but the holder of the lease adds to them or takes from them."""
        self._backoff = FIRST_BACKOFF_SECONDS
        self._settle_at = self._clean_at = 0.0
        self._backlog = Backlog(url)

    async def run(self) -> None:
        """Publish for ever, whatever happens to the database, the broker or another relay."""
        with PULSE.during("relay"):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._backlog.watch(), name="backlog")
                group.create_task(self._relay(), name="relay sessions")

    async def _relay(self) -> None:
        while True:
            PULSE.beat("relay")
            try:
                await self._session()
            except MovedError:
                await asyncio.sleep(STANDBY_POLL_SECONDS)
            except TopicRefusedError as error:
                TOPIC_REFUSED.labels(error.topic).inc()
                log.error(  # noqa: TRY400 - the line says it all
                    "relay.topic_refused",
                    topic=error.topic,
                    reason=error.reason,
                    retry_in_seconds=self._backoff,
                    action="make the topic what it should be, or grant the right to write to it; nothing is published meanwhile",
                )
                await self._back_off()
            except BrokerRefusedError as error:
                DENIED.labels("publish").inc()
                log.error(  # noqa: TRY400 - as above
                    "relay.refused",
                    reason=str(error),
                    retry_in_seconds=self._backoff,
                    action="give this service its user and its rights at the broker; nothing is published meanwhile",
                )
                await self._back_off()
            except (KafkaError, *TRANSIENT, asyncpg.PostgresError) as error:
                INTERRUPTED.inc()
                log.warning(
                    "relay.interrupted",
                    error=str(error) or type(error).__name__,
                    retry_in_seconds=self._backoff,
                    action="nothing is lost; it goes on",
                )
                await self._back_off()

    async def _back_off(self) -> None:
        await asyncio.sleep(self._backoff)
        self._backoff = min(self._backoff * 2, LAST_BACKOFF_SECONDS)

    async def _session(self) -> None:
        """A few connections' life: wait for the lease, then publish until something breaks."""
        async with AsyncExitStack() as stack:
            durable = await stack.enter_async_context(connection(self._url, synchronous_commit="on"))
            lazy = await stack.enter_async_context(connection(self._url, synchronous_commit="off"))

            async def large() -> Connection:
                if self._large is None:
                    self._large = await stack.enter_async_context(
                        connection(self._url, synchronous_commit="off", statement_seconds=LARGE_WINDOW_SECONDS)
                    )
                return self._large

            cursor = Cursor(durable, lazy, self._owner)
            if address(self._url)[1] != "transaction":
                await cursor.be_known()
            await _stand_by(cursor)
            await self._recognise(cursor)
            HOLDS_LEASE.set(1)
            self._hints.relays = True
            try:
                await self._publish_for_ever(cursor, large)
            finally:
                HOLDS_LEASE.set(0)
                self._hints.relays = False
                self._large = None
                await self._publisher.replace()
                await self._give_back(cursor)

    async def _recognise(self, cursor: Cursor) -> None:
        """Find out whether this database was restored, before anything is published from it."""
        reached = await self._holding(cursor, furthest(self._broker, self._database, {*self._topics, *await cursor.topics()}))
        if await cursor.begin_timeline_above(reached):
            RESTORED.inc()
            log.critical(
                "relay.restored_database",
                timeline=reached[0],
                window=reached[1],
                action="it goes on under a new timeline; what the restored database lacks is to be found: "
                "docs/runbooks/restored-database.md",
            )

    async def _give_back(self, cursor: Cursor) -> None:
        try:
            async with asyncio.timeout(1):
                with suppress(MovedError):
                    await cursor.close()
                await cursor.give_back()
        except (*TRANSIENT, asyncpg.PostgresError):
            log.info("relay.lease_not_returned", action="a standby takes over when it ends")

    async def _publish_for_ever(self, cursor: Cursor, large: Reader) -> None:
        self._publisher.first_count = cursor.first_partition_count
        self._blocked = await cursor.parked_keys()
        window = cursor.window
        opened_at = leased_at = time.monotonic()
        while True:
            PULSE.beat("relay")
            if window is not None:
                await self._publish_window(cursor, window, large)
                leased_at = time.monotonic()
                await asyncio.sleep(min(leased_at - opened_at, REST_SECONDS))
            elif time.monotonic() - leased_at > LEASE_SECONDS / 3:
                await cursor.renew()
                leased_at = time.monotonic()
            await self._chores(cursor)
            anything = await self._anything(cursor)
            opened_at = time.monotonic()
            window = await cursor.open() if anything else None

    async def _anything(self, cursor: Cursor) -> bool:
        """Wait for a hint, or a moment, and then look; answers whether there seems to be something to publish."""
        try:
            seconds = IDLE_POLL_SECONDS if self._hints.hears else DEAF_POLL_SECONDS
            async with asyncio.timeout(seconds):  # 3.11's wait_for would swallow a cancellation now and then
                await self._hints.outbox.wait()
        except TimeoutError:
            if await cursor.something_new():
                return True
            await cursor.close()
            return False
        self._hints.outbox.clear()
        return True

    async def _chores(self, cursor: Cursor) -> None:
        """What is done between two windows now and then, also while there is no end of them."""
        moment = time.monotonic()
        if moment >= self._settle_at:
            self._settle_at = moment + SETTLE_SECONDS
            if await cursor.settle():
                self._blocked = await cursor.parked_keys()
                WAITING.set(await cursor.parked_count())
        if moment >= self._clean_at:
            slot_seconds = await cursor.clean()
            self._clean_at = moment + min(CLEAN_SECONDS, slot_seconds / 4)
            WAITING.set(await cursor.parked_count())

    async def _publish_window(self, cursor: Cursor, window: Window, large: Reader) -> None:
        """Send every row of the open window that is not yet acknowledged, or park it."""
        count = 0
        if window.rows:
            count = await self._publish_chunk(cursor, window, window.rows)
        elif window.rows is None:
            async with aclosing(chunks(window, large)) as found:
                while rows := await self._holding(cursor, _next(found)):
                    count += await self._publish_chunk(cursor, window, rows)
        cursor.done()
        WINDOW_ROWS.observe(count)

    async def _publish_chunk(self, cursor: Cursor, window: Window, rows: Sequence[Any]) -> int:
        """Send rows and park those refused; answers how many there were."""
        started = time.perf_counter()
        refusals = await self._holding(cursor, self._publish(window, rows))
        # Closing the window compares with the last ordinal; the rows after it need no write of their own.
        if refusals or len(rows) == CHUNK:
            await cursor.advance(rows[-1]["n"], refusals)
        self._published(rows, refusals, time.perf_counter() - started)
        return len(rows)

    async def _publish(self, window: Window, rows: Sequence[Any]) -> Sequence[Refusal]:
        waiting: list[Refusal] = []
        if self._blocked:
            waiting = [behind(row) for row in rows if key_of(row) in self._blocked]
            rows = [row for row in rows if key_of(row) not in self._blocked]
        position = f"{self._database}/{window.timeline}.{window.win}."
        return [*waiting, *(await self._send(position, rows) if rows else [])]

    async def _send(self, position: str, rows: Sequence[Any]) -> Sequence[Refusal]:
        with chunk_span(rows, traceparent_of):
            return await self._publisher.send(position, rows)

    async def _holding(self, cursor: Cursor, work: Awaitable[R]) -> R:
        """Wait for something that may take long, keeping the lease meanwhile."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=LEASE_SECONDS / 3))[0]:
                PULSE.beat("relay")
                await cursor.renew()
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=STANDBY_POLL_SECONDS)
            if task.done() and not task.cancelled():
                task.exception()  # it may have failed together with the lease, which is what is told of

    def _published(self, rows: Sequence[Any], refusals: Sequence[Refusal], seconds: float) -> None:
        self._backoff = FIRST_BACKOFF_SECONDS
        CHUNK_LATENCY.observe(seconds)
        CHUNK_ROWS.observe(len(rows))
        PUBLISHED.inc(len(rows) - len(refusals))
        for refusal in refusals:
            key = key_of(refusal.row)
            PARKED.labels(refusal.row["topic"], refusal.reason).inc()
            WAITING.inc()
            if key not in self._blocked:
                self._blocked.add(key)
                log.error(
                    "relay.set_aside",
                    topic=refusal.row["topic"],
                    key=refusal.row["key"].decode(errors="replace"),
                    event_id=str(refusal.row["event_id"]),
                    tenant_id=str(refusal.row["tenant_id"]),
                    reason=refusal.reason,
                    action="later events of this key wait behind it, all others flow; replay or discard it",
                )


async def _stand_by(cursor: Cursor) -> None:
    """Wait for the lease, looking again when it ends and now and then before, for it may be given back."""
    while True:
        PULSE.beat("relay")
        free_in = await cursor.lease()
        if not free_in:
            return
        await asyncio.sleep(min(free_in, STANDBY_POLL_SECONDS))


async def _next(found: AsyncGenerator[Sequence[Any], None]) -> Sequence[Any]:
    """The next chunk, or none. The built-in `anext` with a default cannot be a task in Python 3.11."""
    try:
        return await anext(found)
    except StopAsyncIteration:
        return ()
