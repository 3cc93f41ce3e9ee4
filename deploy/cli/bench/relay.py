"""Measures the relay: outbox rows to acknowledged records, beside a loop of sends and beside `faststream-outbox`.

A turn commits all its rows at once while the contender waits for them, and ends when the topic holds them all. Every
contender has its turn in every round, on the same database, topic and broker, with the same keys, values and headers.
"""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final

import psutil
import uvloop

from deploy.cli.bench import rival
from deploy.cli.bench.figures import Log, Rates, Spent, machine, say, settle, topic_log
from deploy.cli.bench.place import Place, copy_into_outbox, durability
from deploy.cli.bench.subject import EVENT_BYTES, SERVICE, TOPIC, readings
from deploy.cli.bench.traffic import latency
from libs.common.database import Connection
from libs.common.messaging.envelope import Row
from libs.common.messaging.headers import unpack
from libs.common.messaging.hints import Hints
from libs.common.messaging.relay import Relay
from libs.common.telemetry import configure_logging

_RIVALS_SHARE: Final = 20
"""The rival is given a twentieth of the rows: its rate hardly depends on their number, and the run stays short."""
_IDLE_SECONDS: Final = 10


@asynccontextmanager
async def relaying(place: Place) -> AsyncIterator[Hints]:
    """Our relay at work in this process."""
    async with place.hints() as hints:
        task = asyncio.create_task(Relay(place.url("relay"), database=SERVICE, broker=place.broker(), hints=hints).run())
        try:
            yield hints
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


class Turns:
    """One turn of each contender, as often as asked."""

    def __init__(self, log: Log, place: Place, database: Connection, rows: Sequence[Row]) -> None:
        self.rates = Rates()
        self._log, self._place, self._database, self._rows = log, place, database, rows

    async def send_loop(self) -> None:
        """The baseline: a plain loop of sends with the relay's own producer, every message ready in memory."""
        messages = [(row.key, row.payload, _headers(row, n)) for n, row in enumerate(self._rows)]
        producer = await self._place.broker().producer()
        await producer.partitions_for(TOPIC)
        wanted = await self._log.length() + len(messages)
        settle()
        begun = Spent.now()
        for key, value, headers in messages:
            await producer.send(TOPIC, value, key=key, headers=headers)
        await producer.flush()
        self.rates.add("send_loop", len(messages), await self._log.until(wanted) - begun)
        await producer.stop()

    async def relay(self, name: str, place: Place, database: Connection) -> None:
        """The subject, on one of the databases."""
        async with relaying(place) as hints:
            await self._publish(hints, database, self._rows[:1])
            settle()
            self.rates.add(name, len(self._rows), await self._publish(hints, database, self._rows))

    async def _publish(self, hints: Hints, database: Connection, rows: Sequence[Row]) -> Spent:
        """Commit rows, say so as the shell does, and wait; answers what it took."""
        wanted = await self._log.length() + len(rows)
        async with database.transaction():
            await copy_into_outbox(database, rows)
            begun = Spent.now()
        hints.give(outbox=True, changed=())
        return await self._log.until(wanted) - begun

    async def rival(self, name: str) -> None:
        """`faststream-outbox` in one of its settings."""
        rows = self._rows[: max(1, len(self._rows) // _RIVALS_SHARE)]
        async with rival.relaying(self._place, rival.SETTINGS[name]):
            await self._publish_by_rival(rows[:1])
            settle()
            self.rates.add(name, len(rows), await self._publish_by_rival(rows))

    async def _publish_by_rival(self, rows: Sequence[Row]) -> Spent:
        wanted = await self._log.length() + len(rows)
        async with self._database.transaction():
            await rival.copy_into_outbox(self._database, rows)
            await rival.wake(self._database)
            begun = Spent.now()
        return await self._log.until(wanted) - begun


def _headers(row: Row, n: int) -> list[tuple[str, bytes]]:
    """What the relay sends with a row: its headers, and a position."""
    return [*unpack(row.headers), ("ce_relayposition", f"{SERVICE}/1.1.{n}".encode())]


async def publish_history(database: Connection, row: Row, count: int) -> None:
    """Fill the outbox with rows of the usual size that count as published."""
    await database.execute(
        """INSERT INTO outbox_event (event_id, tenant_id, topic, key, headers, payload)
        SELECT gen_random_uuid(), $1, $2, $3, $4, $5 FROM generate_series(1, $6::int)""",
        *(row.tenant_id, row.topic, row.key, row.headers, row.payload, count),
        timeout=3_600,
    )
    await database.execute("VACUUM (ANALYZE) outbox_event", timeout=3_600)
    await database.execute("UPDATE outbox_cursor SET lo = pg_current_snapshot(), hi = NULL")
    await database.execute("CHECKPOINT", timeout=3_600)


async def outbox_gigabytes(database: Connection) -> float:
    """How large the outbox is."""
    total = "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('outbox_event')"
    return round(float(await database.fetchval(total)) / 1e9, 2)


async def idle(place: Place, database: Connection) -> dict[str, float]:
    """What a relay costs that has nothing to do, as shares of one core: its own process, and its server sessions."""
    async with relaying(place):
        await asyncio.sleep(3)
        sessions = await _sessions(database)
        begun, own, served = time.perf_counter(), time.process_time(), _cpu_seconds(sessions)
        await asyncio.sleep(_IDLE_SECONDS)
        seconds = time.perf_counter() - begun
        return {
            "relay_percent_of_a_core": round((time.process_time() - own) / seconds * 100, 2),
            "postgres_percent_of_a_core": round((_cpu_seconds(sessions) - served) / seconds * 100, 2),
        }


async def _sessions(database: Connection) -> list[psutil.Process]:
    query = "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
    found = [row["pid"] for row in await database.fetch(query, SERVICE)]
    return [psutil.Process(pid) for pid in found if psutil.pid_exists(pid)]


def _cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


async def compare(turns: Turns, rounds: int, new: tuple[Place, Connection], old: tuple[Place, Connection]) -> None:
    """Give every contender its turn in every round: the relay on a new outbox, and on one with a history."""
    for number in range(1, rounds + 1):
        say(f"round {number} of {rounds}")
        await turns.send_loop()
        await turns.relay("relay", *new)
        await turns.relay("relay_after_history", *old)
        for name in rival.SETTINGS:
            await turns.rival(name)
        await new[1].execute("TRUNCATE outbox_event")


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Take every figure of the relay."""
    place = Place.from_environment()
    old_place = replace(place, prefix="old_")
    await place.prepare()
    await old_place.prepare()
    before = machine()
    rows = list(readings(arguments.rows))
    async with (
        topic_log(place.bootstrap_servers) as log,
        place.superuser() as database,
        old_place.superuser() as old_database,
    ):
        say(f"filling an outbox with {arguments.published:,} published rows")
        await publish_history(old_database, rows[0], arguments.published)
        await rival.prepare(database)
        turns = Turns(log, place, database, rows)
        await compare(turns, arguments.rounds, (place, database), (old_place, old_database))
        gigabytes = await outbox_gigabytes(old_database)
        async with relaying(place):
            say(f"latency at {arguments.rate} events a second for {arguments.seconds} s")
            waited = await latency(arguments.rate, arguments.seconds)
        say("idling")
        resting = await idle(place, database)
    strongest = max(rival.SETTINGS, key=turns.rates.median)
    return {
        "ratio_to_send_loop": turns.rates.ratio("relay", "send_loop"),
        "ratio_to_faststream_outbox": turns.rates.ratio("relay", strongest),
        "ratio_to_faststream_outbox_as_documented": turns.rates.ratio("relay", "faststream_outbox"),
        "faststream_outbox_setting": {"name": strongest, **rival.SETTINGS[strongest]},
        **waited,
        "idle": resting,
        "flatness": {
            "ratio_to_new_outbox": turns.rates.ratio("relay_after_history", "relay"),
            "rows_already_published": arguments.published,
            "outbox_gigabytes": gigabytes,
        },
        "messages_per_second": turns.rates.as_json(),
        **await durability(place),
        **sizes(rows),
        "rounds": arguments.rounds,
        "machine": {"before": before, "after": machine()},
    }


def sizes(rows: Sequence[Row]) -> dict[str, int]:
    """How large the messages are."""
    headers = sum(len(name) + len(value) for name, value in _headers(rows[0], 0))
    return {"rows": len(rows), "payload_bytes": len(rows[0].payload), "header_bytes": headers, "event_bytes": EVENT_BYTES}


def main() -> None:
    """Measure, and print the figures as one JSON object."""
    parser = argparse.ArgumentParser(prog="bench relay")
    for option in ("rows", "rounds", "published", "rate", "seconds"):
        parser.add_argument(f"--{option}", type=int, required=True)
    configure_logging("warning", "json")
    print(json.dumps(uvloop.run(measure(parser.parse_args()))))


if __name__ == "__main__":
    main()
