"""Rebuilding a projection from its topics: beside the live table, without a single side effect, then swapped in.

The records are decided by the same handlers, from the first one kept to where the live consumer stands; what they would
publish is dropped. The swap happens under the consumer's own position locks, so no record is missed or taken twice.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import asyncpg
import structlog
from aiokafka import TopicPartition

from libs.common.clock import PLATFORM
from libs.common.database import Connection, Projection
from libs.common.decision import IdentityMap
from libs.common.errors import ConflictError, NotFoundError
from libs.common.messaging.audit import Act, append
from libs.common.messaging.broker import Broker
from libs.common.messaging.envelope import Invalid, KafkaRecord, Reader, Received
from libs.common.messaging.ordering import Marks, above_watermark, in_order, partition_of
from libs.common.messaging.parked import Parked
from libs.common.messaging.reading import UNREADABLE, Consumer
from libs.common.messaging.shell import Failure, Shell, is_dropped
from libs.common.origin import Origin

READ_SECONDS = 30
SWAP_SECONDS = 600
"""A large table takes longer to compare and to swap than anything else may take."""

log = structlog.get_logger(__name__)


def rebuildable(service: str, table: str, key: Sequence[str]) -> Sequence[str]:
    """The statements that let a table be rebuilt, for its service's migration.

    Emptying and swapping concern every tenant at once, so two functions of the owner do them, and nothing else.
    """
    app, owner, beside = f"{service}_app", f"{service}_owner", f"{table}_rebuild"
    order = ", ".join(f't."{column}"' for column in key)
    fingerprint = f"md5(coalesce(string_agg(md5(t::text), '' ORDER BY {order}), ''))"
    return [
        f"CREATE TABLE {beside} (LIKE {table} INCLUDING ALL)",
        f"CREATE POLICY owner_swaps ON {table} TO {owner} USING (true) WITH CHECK (true)",
        f"CREATE POLICY owner_swaps ON {beside} TO {owner} USING (true) WITH CHECK (true)",
        f"""CREATE FUNCTION {beside}_begin() RETURNS void
            LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS 'TRUNCATE {beside}'""",
        # The names are those of our own tables.
        f"""CREATE FUNCTION {beside}_swap(OUT before text, OUT after text, OUT row_count bigint)
            LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
            BEGIN
                SELECT {fingerprint} INTO before FROM {table} t;
                SELECT {fingerprint}, count(*) INTO after, row_count FROM {beside} t;
                IF before <> after THEN
                    DELETE FROM {table};
                    INSERT INTO {table} SELECT * FROM {beside};
                END IF;
            END $$""",  # noqa: S608
        f"REVOKE ALL ON FUNCTION {beside}_begin(), {beside}_swap() FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION {beside}_begin(), {beside}_swap() TO {app}",
    ]


def careful_swap(table: str, key: Sequence[str]) -> str:
    """The swap from now on, for a migration: it refuses to take from a tenant all that it has.

    The app may begin and swap at any time, so what stands beside may be empty, or half of it.
    """
    beside, order = f"{table}_rebuild", ", ".join(f't."{column}"' for column in key)
    fingerprint = f"md5(coalesce(string_agg(md5(t::text), '' ORDER BY {order}), ''))"
    # The names are those of our own tables.
    return f"""CREATE OR REPLACE FUNCTION {beside}_swap(OUT before text, OUT after text, OUT row_count bigint)
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
        DECLARE live_count bigint;
        BEGIN
            SELECT {fingerprint}, count(*) INTO before, live_count FROM {table} t;
            SELECT {fingerprint}, count(*) INTO after, row_count FROM {beside} t;
            IF row_count * 2 < live_count
                OR EXISTS (SELECT t.tenant_id FROM {table} t EXCEPT SELECT t.tenant_id FROM {beside} t) THEN
                RAISE EXCEPTION '{beside} has % rows and {table} has %: a tenant would lose what it has', row_count, live_count;
            END IF;
            IF before <> after THEN
                DELETE FROM {table};
                INSERT INTO {table} SELECT * FROM {beside};
            END IF;
        END $$"""  # noqa: S608


POSITIONS = "SELECT topic, part, next_offset FROM inbox_position WHERE consumer = $1 AND topic = ANY ($2::text[])"


class Rebuilder:
    """Rebuilds the projections of one service, one at a time."""

    def __init__(
        self,
        shell: Shell,
        broker: Broker,
        *,
        group: str,
        projections: Sequence[Projection],
        others: "Sequence[Rebuilder]" = (),
    ) -> None:
        self._shell = shell
        self._broker = broker
        self._group = broker.prefix + group
        self._projections = {projection.name: projection for projection in projections}
        self._others = {name: other for other in others for name in other.names}
        """Who rebuilds what other consumer groups of the service keep."""
        self._busy = asyncio.Lock()

    @property
    def names(self) -> Sequence[str]:
        """The projections that can be rebuilt here."""
        return [*self._projections, *self._others]

    async def rebuild(self, name: str, *, actor: Origin) -> dict[str, Any]:
        """Rebuild one projection; answers its hash before and after, and how much was read."""
        if name in self._others:
            return await self._others[name].rebuild(name, actor=actor)
        projection = self._projections.get(name)
        if projection is None:
            known = ", ".join(self.names) or "none"
            raise NotFoundError("projection-not-found", f"this service can rebuild: {known}")
        if self._busy.locked():
            raise ConflictError("rebuild-in-progress", "a projection is being rebuilt already", retry_after=10)
        async with self._busy:
            return await self._rebuild(projection, actor)

    async def _rebuild(self, projection: Projection, actor: Origin) -> dict[str, Any]:
        beside = projection.beside.table.name
        async with self._shell.database.acquire() as connection:
            await connection.execute(f"SELECT {beside}_begin()")
        run = _Run(self._shell.standing_in(projection.live.kind, projection.beside), self._broker, projection)
        try:
            await run.read_until(await self._positions(projection))
            async with self._shell.database.transaction([PLATFORM]) as connection:
                await run.read_until(await self._positions(projection, connection))
                await connection.execute(f"SET LOCAL statement_timeout = '{SWAP_SECONDS}s'")
                swapping = f"SELECT before, after, row_count FROM {beside}_swap()"  # noqa: S608 - our own table
                swap = await _swapped(connection, swapping)
                rebuilt = Act(
                    tenant_id=PLATFORM,
                    origin=actor,
                    action="projection.rebuild",
                    kind="projection",
                    object_id=projection.name,
                    reason="rebuilt from its topics",
                )
                await append(connection, [rebuilt])
        finally:
            await run.close()
        outcome = {
            "projection": projection.name,
            "rows": swap["row_count"],
            "records_read": run.read,
            "records_failed": run.failed,
            "hash_before": swap["before"],
            "hash_after": swap["after"],
            "changed": swap["before"] != swap["after"],
        }
        log.info("projection.rebuilt", actor=actor.client_id, **outcome)
        return outcome

    async def _positions(self, projection: Projection, locking: "Connection | None" = None) -> dict[TopicPartition, int]:
        """Where the live consumer stands; locked there, when it is time to swap."""
        topics = [self._broker.topic(topic) for topic in projection.topics]
        if locking is not None:
            rows = await locking.fetch(f"{POSITIONS} ORDER BY topic, part FOR UPDATE", self._group, topics)
        else:
            async with self._shell.database.acquire() as connection:
                rows = await connection.fetch(POSITIONS, self._group, topics)
        return {TopicPartition(row["topic"], row["part"]): row["next_offset"] for row in rows}


async def _swapped(connection: Connection, swapping: str) -> Any:
    """What the swap says. Raises ConflictError when what was rebuilt would leave a tenant with nothing."""
    try:
        return await connection.fetchrow(swapping, timeout=SWAP_SECONDS)
    except asyncpg.RaiseError as error:
        raise ConflictError("rebuild-incomplete", f"{error}; nothing was changed") from error


class _Run:
    """One pass over the topics, into the table beside."""

    def __init__(self, shell: Shell, broker: Broker, projection: Projection) -> None:
        self.read = 0
        self.failed = 0
        self._shell = shell
        self._broker = broker
        events = [event for event in shell.handlers.events() if event.TOPIC in projection.topics]
        self._reader = Reader(events, topic_prefix=broker.prefix)
        self._consumer: Consumer | None = None
        self._marks: Marks = {}
        self._seen: set[tuple[str, str]] = set()

    async def close(self) -> None:
        """Let go of the broker."""
        if self._consumer is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._consumer.stop(), 5)

    async def read_until(self, ends: Mapping[TopicPartition, int]) -> None:
        """Read on until every partition has come this far. Raises ConflictError when a topic stands still."""
        consumer = await self._started(list(ends))
        beginnings = await consumer.beginning_offsets(list(ends))
        ends = {partition: end for partition, end in ends.items() if end > beginnings[partition]}
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READ_SECONDS
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            batches = await consumer.getmany(timeout_ms=500, max_records=1_000)
            records = [each for batch in batches.values() for each in batch if each.offset < ends.get(partition_of(each), 0)]
            if records:
                await self._apply(records)
                deadline = loop.time() + READ_SECONDS
            elif loop.time() > deadline:
                raise ConflictError("rebuild-stalled", f"the broker gave nothing for {READ_SECONDS} s; nothing was changed")
            for partition in batches:
                # What lies beyond is the live consumer's, until the next round says otherwise.
                if partition in ends and await consumer.position(partition) > ends[partition]:
                    consumer.seek(partition, ends[partition])

    async def _started(self, partitions: Sequence[TopicPartition]) -> Consumer:
        if self._consumer is None:
            self._consumer = self._broker.reader()
            await self._consumer.start()
            self._consumer.assign(list(partitions))
            await self._consumer.seek_to_beginning()
        return self._consumer

    async def _apply(self, records: Sequence[KafkaRecord]) -> None:
        self.read += len(records)
        received: dict[TopicPartition, list[Received]] = {}
        for record in records:
            found = self._reader.read(record)
            if isinstance(found, Invalid) and found.reason == UNREADABLE:
                self.failed += 1
                log.critical("projection.unreadable", topic=record.topic, partition=record.partition, detail=found.detail)
            elif isinstance(found, Received):
                received.setdefault(partition_of(record), []).append(found)
                self._marks.setdefault(partition_of(record), {})
        fresh = [each for each in above_watermark(received, self._marks) if self._is_new(each)]
        messages = [each.message for each in in_order(fresh, [], self._is_delta)]
        if not messages:
            return
        async with self._shell.database.transaction(message.tenant_id for message in messages) as connection:
            answers, aggregates = await self._shell.decide(connection, messages)
            await self._shell.store(connection, _silenced(aggregates), ends=True)
        self.failed += sum(isinstance(answer, Failure) and not is_dropped(answer) for answer in answers)

    def _is_delta(self, found: Received | Parked) -> bool:
        return self._shell.handlers[type(found.message.data)].is_delta

    def _is_new(self, found: Received) -> bool:
        """A foreign delta counts once, whatever its publisher repeats."""
        if found.position is not None or not self._is_delta(found):
            return True
        identity = (found.message.source, found.message.id)
        is_new = identity not in self._seen
        self._seen.add(identity)
        return is_new


def _silenced(aggregates: IdentityMap) -> IdentityMap:
    """The same changes, with nothing to tell the world and nothing to wait for: that was long ago."""
    aggregates.published.clear()
    aggregates.reminders.clear()
    return aggregates
