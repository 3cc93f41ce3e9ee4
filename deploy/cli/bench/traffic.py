"""Traffic for the latency of a relay: a process of its own that commits events at a steady rate and consumes them.

The clock starts when the last statement before the commit is done, so an event's latency contains its commit. Both ends
are in one process and thus read one clock; the relay is in another, as it is in production.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.cli.bench.figures import percentile
from deploy.cli.bench.place import Place
from deploy.cli.bench.subject import PARTITIONS, SERVICE, TOPIC, readings
from deploy.local.environment import python
from libs.common.database import Database
from libs.common.messaging.envelope import Row
from libs.common.messaging.hints import Hints
from libs.common.messaging.outgoing import INSERT_EVENTS
from libs.common.telemetry import configure_logging

_WRITERS: Final = 8
_WARM_UP_SECONDS: Final = 2
_PATIENCE_SECONDS: Final = 60


async def latency(rate: int, seconds: int) -> dict[str, Any]:
    """Have another process make traffic for the relay that runs in this one; answers what it measured."""
    command = python("deploy.cli.bench.traffic", f"--rate={rate}", f"--seconds={seconds}")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode:
        sys.exit("bench: the traffic failed")
    figures: dict[str, Any] = json.loads(output)
    return figures


class Traffic:
    """Events by their number: when each was committed, and when it was consumed."""

    def __init__(self, rows: Sequence[Row], rate: int) -> None:
        self.rows, self.rate = rows, rate
        self.committed = [0.0] * len(rows)
        self.consumed = [0.0] * len(rows)
        self._number = {str(row.event_id).encode(): number for number, row in enumerate(rows)}

    async def write(self, database: Database, hints: Hints, first: int, begun: float) -> None:
        """Commit every eighth event when it is due, each in a transaction of its own."""
        for number in range(first, len(self.rows), _WRITERS):
            await asyncio.sleep(max(0.0, begun + number / self.rate - time.perf_counter()))
            row = self.rows[number]
            columns = (row.event_id, row.tenant_id, row.topic, row.key, row.headers, row.payload)
            async with database.transaction([row.tenant_id]) as connection:
                await connection.execute(INSERT_EVENTS, *([value] for value in columns))
                self.committed[number] = time.perf_counter()
            hints.give(outbox=True, changed=())

    async def read(self, consumer: AIOKafkaConsumer) -> None:
        """Consume until every event was seen."""
        missing = len(self.rows)
        while missing:
            for records in (await consumer.getmany(timeout_ms=1_000)).values():
                moment = time.perf_counter()
                for record in records:
                    number = self._number[dict(record.headers)["ce_id"]]
                    missing -= not self.consumed[number]
                    self.consumed[number] = self.consumed[number] or moment

    def figures(self) -> dict[str, Any]:
        """The latencies after the warm-up, and the rate that was really reached."""
        counted = range(_WARM_UP_SECONDS * self.rate, len(self.rows))
        waited = [(self.consumed[number] - self.committed[number]) * 1_000 for number in counted]
        lasted = self.committed[-1] - self.committed[counted[0]]
        return {
            "latency_p50_ms": round(percentile(waited, 0.5), 1),
            "latency_p99_ms": round(percentile(waited, 0.99), 1),
            "latency_max_ms": round(max(waited), 1),
            "latency_events": len(counted),
            "latency_events_per_second": round(len(counted) / lasted),
        }


async def measure(rate: int, seconds: int) -> dict[str, Any]:
    """Write and read at once."""
    place = Place.from_environment()
    traffic = Traffic(list(readings(rate * (seconds + _WARM_UP_SECONDS))), rate)
    consumer = AIOKafkaConsumer(bootstrap_servers=place.bootstrap_servers)
    await consumer.start()
    partitions = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    await consumer.seek_to_end(*partitions)
    database = await Database.connect(place.url("app"), application=SERVICE, size=_WRITERS)
    async with place.hints() as hints, asyncio.timeout(seconds + _PATIENCE_SECONDS):
        begun = time.perf_counter()
        writers = (traffic.write(database, hints, first, begun) for first in range(_WRITERS))
        await asyncio.gather(traffic.read(consumer), *writers)
    await database.close()
    await consumer.stop()
    return traffic.figures()


def main() -> None:
    """Make traffic, and print the latencies as one JSON object."""
    parser = argparse.ArgumentParser(prog="bench traffic")
    for option in ("rate", "seconds"):
        parser.add_argument(f"--{option}", type=int, required=True)
    arguments = parser.parse_args()
    configure_logging("warning", "json")
    print(json.dumps(uvloop.run(measure(arguments.rate, arguments.seconds))))


if __name__ == "__main__":
    main()
