"""The positions as the database has them, each with the log that it is a position of, and what operators do about them.

Offsets alone do not tell a log from one that was made anew after the broker's disk was lost: below the stored offset its
records would be taken for old ones. So a position keeps the topic's id and the epoch of the partition's leader, and a log
that is another one is not read until somebody adopts it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from libs.common.clock import PLATFORM
from libs.common.database import Connection, Database
from libs.common.errors import MalformedError, UnavailableError
from libs.common.messaging.audit import Act, append
from libs.common.messaging.reading import Consumer, Log
from libs.common.origin import Origin

READ = """SELECT topic, part, next_offset, topic_id, leader_epoch FROM inbox_position
JOIN unnest($2::text[], $3::int[]) AS w(topic, part) USING (topic, part) WHERE consumer = $1"""

ALL = """SELECT topic, part, next_offset, topic_id, leader_epoch FROM inbox_position
WHERE consumer = $1 AND topic = ANY ($2::text[]) ORDER BY topic, part"""

BEGIN = """INSERT INTO inbox_position (consumer, topic, part, next_offset, topic_id, leader_epoch)
SELECT $1, * FROM unnest($2::text[], $3::int[], $4::bigint[], $5::uuid[], $6::int[]) ON CONFLICT DO NOTHING"""

LEARN = """UPDATE inbox_position p SET topic_id = w.topic_id, leader_epoch = w.leader_epoch
FROM unnest($2::text[], $3::int[], $4::uuid[], $5::int[]) AS w(topic, part, topic_id, leader_epoch)
WHERE p.consumer = $1 AND p.topic = w.topic AND p.part = w.part
    AND p.topic_id IS NOT DISTINCT FROM coalesce(p.topic_id, w.topic_id) AND coalesce(p.leader_epoch, -1) <= w.leader_epoch"""

ADOPT = "SELECT inbox_adopt($1, $2, $3, $4, $5, $6, $7)"

ANSWER_SECONDS: Final = 10.0
"""So long the broker is asked on behalf of an operator who waits; aiokafka's own patience is four times that."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Stored:
    """One position; without a log when it was stored before logs were told apart."""

    next_offset: int
    log: Log | None

    def differs_from(self, log: Log, end: int) -> str | None:
        """Why the log that is there now is not the one that this is a position of, if it is not."""
        known = self.log
        if known is not None and known.topic_id is not None and log.topic_id not in {None, known.topic_id}:
            return f"the topic was made anew: its id was {known.topic_id}, and is {log.topic_id}"
        if end < self.next_offset:
            return f"it ends at {end}, and was read up to {self.next_offset}"
        if known is not None and log.leader_epoch < known.leader_epoch:
            return f"its leader's epoch was {known.leader_epoch}, and is {log.leader_epoch}"
        return None


Columns = tuple[list[str], list[int]]


def columns(partitions: Sequence[TopicPartition]) -> Columns:
    """Partitions as a statement takes them."""
    return [partition.topic for partition in partitions], [partition.partition for partition in partitions]


class StoredPositions:
    """The positions of one consumer group."""

    def __init__(
        self, database: Database, group: str, topics: Sequence[str], consumer: Callable[[], Consumer | None], *, adopts: bool
    ) -> None:
        self.database = database
        self._group = group
        self._topics = topics
        self._consumer = consumer
        self._adopts = adopts
        """Whether a log that is another one is adopted without asking anybody."""
        self.seen: dict[TopicPartition, Log] = {}
        """Which log each partition was when it was taken over."""

    async def take_over(
        self, consumer: Consumer, partitions: Sequence[TopicPartition]
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, str]]:
        """Where these partitions stand, beginning those that have no position; and which are not to be read, and why."""
        logs = await consumer.logs({partition.topic for partition in partitions})
        partitions = [partition for partition in partitions if partition in logs]
        async with self.database.acquire() as connection:
            found = await self._read(connection, partitions)
        # Asked in this order no position is beyond the end: log and positions go on meanwhile, read by whoever had them.
        ends = await consumer.end_offsets(partitions)
        self.seen |= {partition: logs[partition] for partition in partitions}
        async with self.database.acquire() as connection:
            begun = await self._begin(connection, consumer, {each: logs[each] for each in partitions if each not in found})
            differing = _differing(found, logs, ends)
            if differing and self._adopts:
                await self._adopt(connection, consumer, {each: found[each] for each in differing}, logs, by="setting")
                found, differing = await self._read(connection, partitions), {}
            await self._learn(connection, {each: logs[each] for each in found if each not in differing}, found)
        stand = {partition: stored.next_offset for partition, stored in (found | begun).items() if partition not in differing}
        return stand, differing

    async def listing(self) -> list[dict[str, Any]]:
        """Every position, with how it compares to what Kafka has."""
        consumer = self._connected()
        found, logs, ends = await self._everything(consumer)
        differing = _differing(found, logs, ends)
        return [
            {
                "group": self._group,
                "topic": partition.topic,
                "partition": partition.partition,
                "next_offset": stored.next_offset,
                "end_offset": ends.get(partition),
                "topic_id": str(stored.log.topic_id) if stored.log and stored.log.topic_id else None,
                "state": "other-log" if partition in differing else "known-log" if partition in logs else "no-log",
                "detail": differing.get(partition, ""),
            }
            for partition, stored in found.items()
        ]

    async def adopt(self, *, actor: Origin, reason: str) -> list[dict[str, Any]]:
        """Begin anew, at their beginnings, on all logs that are not those we knew. Audited."""
        if not reason.strip():
            raise MalformedError("reason-missing", "say why these logs are adopted")
        consumer = self._connected()
        found, logs, ends = await self._everything(consumer)
        differing = _differing(found, logs, ends)
        async with self.database.transaction([PLATFORM]) as connection:
            adopted = await self._adopt(connection, consumer, {each: found[each] for each in differing}, logs, by=actor.client_id)
            if adopted:
                await append(connection, [self._told(each, actor, reason, differing) for each in adopted])
        return adopted

    def _told(self, adopted: Mapping[str, Any], actor: Origin, reason: str, differing: Mapping[TopicPartition, str]) -> Act:
        topic, partition = adopted["topic"], adopted["partition"]
        return Act(
            tenant_id=PLATFORM,
            origin=actor,
            action="position.adopt",
            kind="position",
            object_id=f"{self._group}:{topic}:{partition}",
            reason=f"{reason} ({differing[TopicPartition(topic, partition)]})",
        )

    def _connected(self) -> Consumer:
        consumer = self._consumer()
        if consumer is None:
            raise UnavailableError("broker-unavailable", "this worker is not connected to the broker yet")
        return consumer

    async def _everything(
        self, consumer: Consumer
    ) -> tuple[dict[TopicPartition, Stored], dict[TopicPartition, Log], dict[TopicPartition, int]]:
        async with self.database.acquire() as connection:
            found = _stored(await connection.fetch(ALL, self._group, list(self._topics)))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                logs = await consumer.logs(set(self._topics))
                return found, logs, await consumer.end_offsets(list(logs))
        except (KafkaError, TimeoutError) as error:
            raise UnavailableError("broker-unavailable", f"the broker does not say which logs it has: {error!r}") from error

    async def _read(self, connection: Connection, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Stored]:
        return _stored(await connection.fetch(READ, self._group, *columns(partitions)))

    async def _begin(
        self, connection: Connection, consumer: Consumer, logs: Mapping[TopicPartition, Log]
    ) -> dict[TopicPartition, Stored]:
        """Positions for partitions that have none: at their first record."""
        if not logs:
            return {}
        partitions = list(logs)
        first = await consumer.beginning_offsets(partitions)
        begins = [first[partition] for partition in partitions]
        await connection.execute(BEGIN, self._group, *columns(partitions), begins, *_identities(logs.values()))
        return await self._read(connection, partitions)

    async def _learn(
        self, connection: Connection, logs: Mapping[TopicPartition, Log], found: Mapping[TopicPartition, Stored]
    ) -> None:
        """Note the log of a position that has none yet, and every later leader."""
        news = {partition: seen for partition, seen in logs.items() if seen != found[partition].log}
        if news:
            await connection.execute(LEARN, self._group, *columns(list(news)), *_identities(news.values()))

    async def _adopt(
        self,
        connection: Connection,
        consumer: Consumer,
        found: Mapping[TopicPartition, Stored],
        logs: Mapping[TopicPartition, Log],
        *,
        by: str,
    ) -> list[dict[str, Any]]:
        first = await consumer.beginning_offsets(list(found)) if found else {}
        adopted = []
        for partition, stored in found.items():
            seen = logs[partition]
            arguments = (*partition, stored.next_offset, first[partition], seen.topic_id, seen.leader_epoch)
            if await connection.fetchval(ADOPT, self._group, *arguments):
                change = {"was": stored.next_offset, "next_offset": first[partition]}
                adopted.append({"group": self._group, "topic": partition.topic, "partition": partition.partition, **change})
                log.warning("inbox.log_adopted", by=by, **adopted[-1])
        return adopted


def _identities(logs: Any) -> tuple[list[Any], list[int]]:
    return [each.topic_id for each in logs], [each.leader_epoch for each in logs]


def _differing(
    found: Mapping[TopicPartition, Stored], logs: Mapping[TopicPartition, Log], ends: Mapping[TopicPartition, int]
) -> dict[TopicPartition, str]:
    compared = {each: stored.differs_from(logs[each], ends[each]) for each, stored in found.items() if each in logs}
    return {partition: why for partition, why in compared.items() if why is not None}


def _stored(rows: Sequence[asyncpg.Record]) -> dict[TopicPartition, Stored]:
    return {
        TopicPartition(row["topic"], row["part"]): Stored(
            row["next_offset"],
            None if row["leader_epoch"] is None else Log(row["topic_id"], row["leader_epoch"]),
        )
        for row in rows
    }
