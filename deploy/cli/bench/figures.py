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


@dataclass(frozen=True, slots=True)
class Spent:
    """Time that passed, and the CPU that this process used of it."""

    seconds: float
    cpu_seconds: float

    @classmethod
    def now(cls) -> "Spent":
        """Both clocks as they stand; what was spent is a difference."""
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, begun: "Spent") -> "Spent":
        return Spent(self.seconds - begun.seconds, self.cpu_seconds - begun.cpu_seconds)


@dataclass(slots=True)
class Rates:
    """What each contender reached, round after round, in messages a second."""

    rounds: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    """What a message costs this process in CPU, in microseconds: it tells more than a rate when others use the machine."""

    def add(self, contender: str, count: int, spent: "Spent") -> None:
        """Note one round."""
        rate, cpu = count / spent.seconds, spent.cpu_seconds / count * 1e6
        self.rounds.setdefault(contender, []).append(rate)
        self.cpu.setdefault(contender, []).append(cpu)
        say(f"{contender:<32} {count:>9,} in {spent.seconds:7.2f} s  {rate:>9,.0f} a second  {cpu:6.1f} µs of CPU each")

    def median(self, contender: str) -> float:
        """The contender's median round."""
        return statistics.median(self.rounds[contender])

    def ratio(self, subject: str, baseline: str) -> float:
        """The ratio of two medians."""
        return round(self.median(subject) / self.median(baseline), 3)

    def as_json(self) -> dict[str, Any]:
        """Every raw figure."""
        return {
            name: {
                "median": round(statistics.median(rates)),
                "rounds": [round(rate) for rate in rates],
                "cpu_microseconds_each": round(statistics.median(self.cpu[name]), 1),
            }
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

    async def until(self, length: int) -> Spent:
        """Wait for that many records; answers the clocks when they were there."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while await self.length() < length:  # noqa: ASYNC110 - the broker tells nobody
                await asyncio.sleep(_POLL_SECONDS)
        return Spent.now()


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


def load_average() -> list[float]:
    """How much there was to do lately, by the minute."""
    return [round(load, 2) for load in os.getloadavg()]


def machine() -> Mapping[str, Any]:
    """What it was measured on."""
    return {
        "cores": os.cpu_count(),
        "load_average": load_average(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
