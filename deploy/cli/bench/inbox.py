"""Measures the inbox: messages with one database effect each, beside two consumers written by hand.

One baseline has a transaction a message, with as few statements as do the same: the effect, and the position. The other
only reads, and commits its offsets a poll. All consume the same records from the beginning, each round in a new group;
the clock runs from a contender's first progress to its last, so that joining a group counts for nobody.
"""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from uuid import UUID

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from deploy.cli.bench.figures import Rates, Spent, machine, say, settle, topic_log
from deploy.cli.bench.place import Place, copy_into_outbox, durability
from deploy.cli.bench.subject import EVENT_BYTES, SERVICE, TOPIC, readings
from libs.common.database import Connection, Database
from libs.common.http.server import calm_collector
from libs.common.messaging.inbox import MAX_RECORDS, Inbox, kafka_broker
from libs.common.messaging.relay import Relay
from libs.common.telemetry import configure_logging

_SINGLE_SHARE: Final = 20
"""A transaction a message is measured on a twentieth of the messages: it takes that much longer for each."""
_POLL_SECONDS: Final = 0.02
_POLL_MS: Final = 200
_PATIENCE_SECONDS: Final = 600

UPSERT = """INSERT INTO tally (tenant_id, id, version, sequence, applied, total, last_sequence)
VALUES ($1, $2, 1, 0, 1, $3, $4) ON CONFLICT (tenant_id, id) DO UPDATE SET version = tally.version + 1,
    applied = tally.applied + 1, total = tally.total + $3, last_sequence = $4"""

MOVE = """INSERT INTO inbox_position (consumer, topic, part, next_offset) VALUES ($1, $2, $3, $4)
ON CONFLICT (consumer, topic, part) DO UPDATE SET next_offset = $4"""


class Progress:
    """How far a contender was when it was first and last looked at."""

    def __init__(self) -> None:
        self._first: tuple[Spent, int] | None = None
        self._last = (Spent(0, 0), 0)

    def at(self, count: int) -> None:
        """Note that this many messages are done by now."""
        self._last = (Spent.now(), count)
        if count and self._first is None:
            self._first = self._last

    def result(self) -> tuple[int, Spent]:
        """The messages between the first look and the last, and what they took."""
        begun, already = self._first or self._last
        return self._last[1] - already, self._last[0] - begun


class Turns:
    """One turn of each contender, as often as asked."""

    def __init__(self, place: Place, database: Connection, count: int) -> None:
        self.rates = Rates()
        self._place, self._database, self._count = place, database, count

    async def inbox(self, group: str) -> None:
        """The subject: FastStream, the inbox, the shell and a handler, as a worker runs them."""
        await self._empty()
        progress = Progress()
        async with self._place.shell() as shell:
            broker = self._place.broker()
            kafka = kafka_broker(broker)
            inbox = Inbox(shell, broker, group=group, topics=[TOPIC])
            inbox.subscribe(kafka)
            settle()
            await kafka.start()
            report = asyncio.create_task(inbox.report())
            await self._watch(progress, group)
            await kafka.stop()
            report.cancel()
            with suppress(asyncio.CancelledError):
                await report
        await self._require_exactly(self._count)
        self.rates.add("inbox", *progress.result())

    async def _watch(self, progress: Progress, group: str) -> None:
        """Follow the stored positions until they are at the end of the topic."""
        query = "SELECT coalesce(sum(next_offset), 0)::bigint FROM inbox_position WHERE consumer = $1"
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while (done := await self._database.fetchval(query, group)) < self._count:
                progress.at(done)
                await asyncio.sleep(_POLL_SECONDS)
        progress.at(done)

    async def transaction_per_message(self, group: str) -> None:
        """The baseline that has the same effects, and the same guarantee, one at a time."""
        await self._empty()
        progress, done, wanted = Progress(), 0, max(1, self._count // _SINGLE_SHARE)
        database = await Database.connect(self._place.url("app"), application=SERVICE, size=1)
        async with _consumer(self._place, group) as consumer:
            settle()
            while done < wanted:
                for partition, records in (await _poll(consumer)).items():
                    for record in records[: wanted - done]:
                        await _apply(database, group, partition, record)
                        done += 1
                        progress.at(done)
        await database.close()
        await self._require_exactly(wanted)
        self.rates.add("transaction_per_message", *progress.result())

    async def raw_consumer(self, group: str) -> None:
        """The baseline that does nothing with a record, and commits its offsets a poll."""
        progress, done = Progress(), 0
        async with _consumer(self._place, group) as consumer:
            settle()
            while done < self._count:
                done += sum(map(len, (await _poll(consumer)).values()))
                await consumer.commit()
                progress.at(done)
        self.rates.add("raw_consumer", *progress.result())

    async def _empty(self) -> None:
        await self._database.execute("TRUNCATE tally, inbox_position, inbox_parked")

    async def _require_exactly(self, count: int) -> None:
        """A figure counts only when the effects are right."""
        applied = await self._database.fetchval("SELECT sum(applied) FROM tally")
        if applied != count:
            raise SystemExit(f"bench: {count} messages had {applied} effects")


@asynccontextmanager
async def _consumer(place: Place, group: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        TOPIC,
        group_id=group,
        bootstrap_servers=place.bootstrap_servers,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def _poll(consumer: AIOKafkaConsumer) -> "dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]":
    """A poll of the inbox's size."""
    records: dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]] = await consumer.getmany(
        timeout_ms=_POLL_MS, max_records=MAX_RECORDS
    )
    return records


async def _apply(database: Database, group: str, partition: TopicPartition, record: "ConsumerRecord[bytes, bytes]") -> None:
    """One message's effect and the position after it, together or not at all."""
    headers, reading = dict(record.headers), orjson.loads(record.value)
    tenant_id = UUID(headers["ce_tenantid"].decode())
    async with database.transaction([tenant_id]) as connection:
        effect = (tenant_id, UUID(reading["meter_id"]), reading["value"], int(headers["ce_sequence"]))
        await connection.execute(UPSERT, *effect)
        await connection.execute(MOVE, group, partition.topic, partition.partition, record.offset + 1)


async def publish(place: Place, database: Connection, count: int) -> None:
    """Fill the topic through the relay, so that the records are what an inbox really reads."""
    await copy_into_outbox(database, list(readings(count)))
    async with place.hints() as hints, topic_log(place.bootstrap_servers) as log:
        relay = Relay(place.url("relay"), database=SERVICE, broker=place.broker(), hints=hints)
        task = asyncio.create_task(relay.run())
        await log.until(count)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Take every figure of the inbox."""
    place = Place.from_environment()
    await place.prepare()
    before = machine()
    async with place.superuser() as database:
        say(f"publishing {arguments.rows:,} messages")
        await publish(place, database, arguments.rows)
        turns = Turns(place, database, arguments.rows)
        for number in range(1, arguments.rounds + 1):
            say(f"round {number} of {arguments.rounds}")
            await turns.inbox(f"inbox-{number}")
            await turns.raw_consumer(f"raw-{number}")
            await turns.transaction_per_message(f"single-{number}")
    rates = turns.rates
    return {
        "ratio_to_transaction_per_message": rates.ratio("inbox", "transaction_per_message"),
        "ratio_to_raw_consumer": rates.ratio("inbox", "raw_consumer"),
        "messages_per_second": rates.as_json(),
        **await durability(place),
        "rows": arguments.rows,
        "event_bytes": EVENT_BYTES,
        "records_per_poll": MAX_RECORDS,
        "rounds": arguments.rounds,
        "machine": {"before": before, "after": machine()},
    }


def main() -> None:
    """Measure, and print the figures as one JSON object."""
    parser = argparse.ArgumentParser(prog="bench inbox")
    for option in ("rows", "rounds"):
        parser.add_argument(f"--{option}", type=int, required=True)
    configure_logging("warning", "json")
    calm_collector()
    print(json.dumps(uvloop.run(measure(parser.parse_args()))))


if __name__ == "__main__":
    main()
