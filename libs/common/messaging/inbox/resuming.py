"""Sources that are paused: what operators see of them, pause and resume; and the reader that catches up with one.

What was held back is read from Kafka again, one partition of one source at a time, by a reader of its own: nobody else
waits for it. It takes half of the time at most.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import asyncpg
import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from libs.common.clock import PLATFORM, rfc3339
from libs.common.database import WHATEVER_IT_SAYS, Connection, passes_by_itself, poll, write
from libs.common.errors import ConflictError, MalformedError, NotFoundError
from libs.common.messaging.audit import Act, append
from libs.common.messaging.batch import Applied, Batch, FencedError
from libs.common.messaging.broker import Broker
from libs.common.messaging.catching_up import CatchUp, CaughtUp
from libs.common.messaging.envelope import Invalid, Reader
from libs.common.messaging.inbox.positions import MISSED
from libs.common.messaging.ordering import Found
from libs.common.messaging.parked import MAX_SOURCE
from libs.common.messaging.reading import Consumer
from libs.common.messaging.shell import Shell
from libs.common.messaging.sources import Source, Stretch, holder_of
from libs.common.origin import Origin
from libs.common.telemetry import Gauge

LOOK_SECONDS = 1.0
PAGE = 500
STALLED_SECONDS = 30.0
NOT_CAUGHT_UP = "inbox.source_not_caught_up"

PAUSED = Gauge("cartwright_inbox_paused_sources", "Sources that are paused, each for one tenant", ["group"])
HELD_BACK = Gauge("cartwright_inbox_held_back_messages", "Messages of paused sources that are not decided yet", ["group"])

ALL = """SELECT s.tenant_id, s.source, s.state, s.reason, s.paused_by, s.paused_at,
    r.topic, r.part, r.first_off, r.last_off, r.records
FROM inbox_source s
LEFT JOIN inbox_source_range r ON (r.consumer, r.tenant_id, r.source) = (s.consumer, s.tenant_id, s.source)
    AND r.first_off <= r.last_off
WHERE s.consumer = $1 AND s.state <> 'live' ORDER BY s.tenant_id, s.source, r.topic, r.part"""

RESUME = """UPDATE inbox_source SET state = 'resuming'
WHERE consumer = $1 AND tenant_id = $2 AND source = $3 AND state <> 'live' RETURNING tenant_id"""

SKIP = """UPDATE inbox_source_range SET first_off = last_off + 1, records = 0
WHERE consumer = $1 AND tenant_id = $2 AND source = $3"""

LOCK = "SELECT FROM inbox_source WHERE consumer = $1 AND tenant_id = $2 AND source = $3 FOR UPDATE"

# Only under that lock, and in a statement that begins after it was given: who held it before may have added a stretch.
DONE = """UPDATE inbox_source s SET state = 'live'
WHERE s.consumer = $1 AND s.tenant_id = $2 AND s.source = $3 AND s.state = 'resuming'
    AND NOT EXISTS (SELECT FROM inbox_source_range r
        WHERE r.consumer = s.consumer AND r.tenant_id = s.tenant_id AND r.source = s.source AND r.first_off <= r.last_off)"""

log = structlog.get_logger(__name__)


class Resuming:
    """The paused sources of one consumer."""

    def __init__(
        self, shell: Shell, batch: Batch, reader: Reader, broker: Broker, group: str, *, committed: Callable[[Applied], None]
    ) -> None:
        self._shell = shell
        self._sources = batch.sources
        self._catch_up = CatchUp(shell, batch, group)
        self._reader = reader
        self._broker = broker
        self._group = group
        self._committed = committed

    async def listing(self) -> list[dict[str, Any]]:
        """Every source that is paused or catching up, with where its messages lie."""
        found: dict[Source, dict[str, Any]] = {}
        for row in await self._rows():
            source = Source(row["tenant_id"], row["source"])
            told = found.setdefault(source, _told(self._group, row))
            if row["topic"] is not None:
                told["held_back"] += row["records"]
                places = {"first_offset": row["first_off"], "last_offset": row["last_off"], "records": row["records"]}
                told["stretches"].append({"topic": row["topic"], "partition": row["part"], **places})
        return [*found.values()]

    async def pause(self, tenant_id: UUID | None, name: str, *, actor: Origin, reason: str) -> dict[str, Any]:
        """Hold back whatever comes of a source from now on. Audited."""
        source = self._named(tenant_id, name, reason)
        async with self._shell.database.transaction([source.tenant_id]) as connection:
            await write(connection, [self._sources.pause([source], reason=reason, by=actor.client_id)])
            await self._audit(connection, "source.pause", source, actor, reason)
        named = {"group": self._group, "tenant_id": str(tenant_id) if tenant_id else None, "source": name}
        log.warning("inbox.source_paused_by_hand", **named, by=actor.client_id)
        return {**named, "state": "paused"}

    async def resume(self, tenant_id: UUID | None, name: str, *, actor: Origin, reason: str, skip: bool) -> dict[str, Any]:
        """Decide what was held back, and then whatever comes; or, to `skip` it, give up what was held back. Audited."""
        source = self._named(tenant_id, name, reason)
        async with self._shell.database.transaction([source.tenant_id]) as connection:
            if not await connection.fetchval(RESUME, self._group, *source):
                raise NotFoundError("source-not-paused", "no such source is paused here")
            if skip:
                await connection.execute(SKIP, self._group, *source)
            await connection.execute(DONE, self._group, *source)
            await self._audit(connection, "source.skip" if skip else "source.resume", source, actor, reason)
        named = {"group": self._group, "tenant_id": str(tenant_id) if tenant_id else None, "source": name}
        log.warning("inbox.source_resumed", **named, skipped=skip, by=actor.client_id)
        return {**named, "state": "resuming"}

    def _named(self, tenant_id: UUID | None, name: str, reason: str) -> Source:
        if not reason.strip():
            raise MalformedError("reason-missing", "say why this source is paused or resumed")
        if not name or len(name) > MAX_SOURCE or "\0" in name:
            raise MalformedError("bad-source", f"a source is text of 1 to {MAX_SOURCE} characters")
        return Source(tenant_id or PLATFORM, name)

    async def _audit(self, connection: Connection, action: str, source: Source, actor: Origin, reason: str) -> None:
        named = f"{self._group}:{source.name}"
        act = Act(tenant_id=source.tenant_id, origin=actor, action=action, kind="source", object_id=named, reason=reason)
        await append(connection, [act])

    async def _rows(self) -> list[asyncpg.Record]:
        async with self._shell.database.transaction([PLATFORM]) as connection:
            return [*await connection.fetch(ALL, self._group)]

    async def run(self) -> None:
        """Look for sources that are to be resumed, again and again."""
        outlives = (*WHATEVER_IT_SAYS, KafkaError, FencedError, ConflictError)
        await poll(self.look, every=LOOK_SECONDS, waiting=NOT_CAUGHT_UP, outlives=outlives, group=self._group)

    async def look(self) -> None:
        """Catch up with every source that is resuming."""
        rows = await self._rows()
        PAUSED.labels(self._group).set(len({(row["tenant_id"], row["source"]) for row in rows if row["state"] == "paused"}))
        HELD_BACK.labels(self._group).set(sum(row["records"] or 0 for row in rows))
        for row in rows:
            source = Source(row["tenant_id"], row["source"])
            if row["state"] == "resuming" and row["topic"] is not None:
                place = TopicPartition(row["topic"], row["part"])
                await self._read(Stretch(source, place, row["first_off"], row["last_off"], row["records"]))
            if row["state"] == "resuming":
                async with self._shell.database.transaction([source.tenant_id]) as connection:
                    await connection.execute(LOCK, self._group, *source)
                    await connection.execute(DONE, self._group, *source)

    async def _read(self, stretch: Stretch) -> None:
        """Read one stretch from Kafka to its end, and decide it."""
        consumer = self._broker.reader()
        await consumer.start()
        try:
            await self._through(consumer, stretch)
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(consumer.stop(), 5)

    async def _through(self, consumer: Consumer, stretch: Stretch) -> None:
        partition, rest = stretch.partition, stretch
        consumer.assign([partition])
        [begin] = (await consumer.beginning_offsets([partition])).values()
        [end] = (await consumer.end_offsets([partition])).values()
        _tell_missed(stretch, max(begin, end if end <= stretch.first else begin))
        if end <= stretch.first:  # the log is another one, or nothing of it is left
            await self._catch_up.apply(stretch, [], stretch.last + 1)
            return
        consumer.seek(partition, max(begin, stretch.first))
        moved_at = time.monotonic()
        while True:
            began = time.monotonic()
            records = (await consumer.getmany(partition, timeout_ms=500, max_records=PAGE)).get(partition, [])
            position = await consumer.position(partition)
            if position > rest.first:
                moved_at = time.monotonic()
                read = [(each, self._reader.read(each)) for each in records if each.offset <= rest.last]
                run = [(each, found) for each, found in read if self._is_of(found, rest)]
                caught_up = await self._decide(rest, run, min(position, rest.last + 1))
                if caught_up is None or caught_up.rest is None or caught_up.applied.paused:
                    return
                rest = caught_up.rest
                if position > rest.first:  # what was polled beyond the stretch has been added to it meanwhile
                    consumer.seek(partition, rest.first)
            elif time.monotonic() - moved_at > STALLED_SECONDS:
                log.warning(NOT_CAUGHT_UP, group=self._group, error="nothing comes", action="it is tried again")
                return
            await asyncio.sleep(time.monotonic() - began)

    @staticmethod
    def _is_of(found: Any, stretch: Stretch) -> bool:
        """Whether a record is one that was held back: of its source, and unreadable if that is one of nobody's."""
        if found is None:
            return False
        holder = holder_of(found)
        if stretch.source.tenant_id == PLATFORM:
            return isinstance(found, Invalid) and holder.name == stretch.source.name
        return holder == stretch.source

    async def _decide(self, stretch: Stretch, run: Sequence[Found], upto: int) -> CaughtUp | None:
        """One transaction; what is refused for good is halved until the culprit is alone, which is parked."""
        try:
            done = await self._catch_up.apply(stretch, run, upto)
        except FencedError:
            return None
        except Exception as error:
            if passes_by_itself(error) or not run:
                raise
            if len(run) > 1:
                return await self._halved(stretch, run, upto)
            done = await self._catch_up.set_aside(stretch, run[0], upto, error)
        self._committed(done.applied)
        return done

    async def _halved(self, stretch: Stretch, run: Sequence[Found], upto: int) -> CaughtUp | None:
        middle = len(run) // 2
        done = await self._decide(stretch, run[:middle], run[middle][0].offset)
        if done is None or done.rest is None or done.applied.paused:
            return done
        return await self._decide(done.rest, run[middle:], upto)


def _told(group: str, row: asyncpg.Record) -> dict[str, Any]:
    return {
        "group": group,
        "tenant_id": None if row["tenant_id"] == PLATFORM else str(row["tenant_id"]),
        "source": row["source"],
        "state": row["state"],
        "reason": row["reason"],
        "paused_by": row["paused_by"],
        "paused_at": rfc3339(row["paused_at"]),
        "held_back": 0,
        "stretches": [],
    }


def _tell_missed(stretch: Stretch, begin: int) -> None:
    missed = min(begin, stretch.last + 1) - stretch.first
    if missed > 0:
        MISSED.labels(stretch.partition.topic).inc(missed)
        log.critical(
            "inbox.missed",
            topic=stretch.partition.topic,
            partition=stretch.partition.partition,
            offset=stretch.first,
            records=missed,
            source=stretch.source.name,
            action="deleted by Kafka's retention while this source was paused: have the publisher send them again",
        )
