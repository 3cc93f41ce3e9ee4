"""Taking figures: progress on stderr, a clock that is the same for every contender, medians, and the machine."""

import asyncio
import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.cli.bench.subject import PARTITIONS, TOPIC

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_POLL_SECONDS: Final = 0.01
_PATIENCE_SECONDS: Final = 300


def say(message: str) -> None:
    """Tell a line of progress."""
    print(f"         {message}", file=sys.stderr, flush=True)


@dataclass(slots=True)
class Rates:
    """What each contender reached, round after round, in messages a second."""

    rounds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, contender: str, count: int, seconds: float) -> None:
        """Note one round."""
        rate = count / seconds
        self.rounds.setdefault(contender, []).append(rate)
        say(f"{contender:<32} {count:>9,} in {seconds:7.2f} s  {rate:>9,.0f} a second")

    def median(self, contender: str) -> float:
        """The contender's median round."""
        return statistics.median(self.rounds[contender])

    def ratio(self, subject: str, baseline: str) -> float:
        """The ratio of two medians."""
        return round(self.median(subject) / self.median(baseline), 3)

    def as_json(self) -> dict[str, Any]:
        """Every raw figure."""
        return {
            name: {"median": round(statistics.median(rates)), "rounds": [round(rate) for rate in rates]}
            for name, rates in self.rounds.items()
        }


class Log:
    """How many records the topic holds: the one clock by which everything that publishes is stopped."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._partitions = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]

    async def length(self) -> int:
        """The number of acknowledged records."""
        return sum((await self._consumer.end_offsets(self._partitions)).values())

    async def until(self, length: int) -> float:
        """Wait for that many records; answers when they were there."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while await self.length() < length:
                await asyncio.sleep(_POLL_SECONDS)
        return time.perf_counter()


@asynccontextmanager
async def topic_log(bootstrap_servers: str) -> "AsyncIterator[Log]":
    """Look at the topic for as long as the context lasts."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers)
    await consumer.start()
    try:
        yield Log(consumer)
    finally:
        await consumer.stop()


def settle() -> None:
    """Begin each turn alike: no garbage of the last one, and the prepared messages out of the collector's way."""
    gc.collect()
    gc.freeze()


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def machine() -> Mapping[str, Any]:
    """What it was measured on."""
    return {
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
