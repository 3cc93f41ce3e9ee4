"""An island behind a rough strait: packets take their time to cross, overtake each other, cross twice or never.

The router is ours, since not every kernel can do this by itself: what comes out of one device goes into the other, when it does.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from tests.shared.island import Island, island, reached

TUN: Final = "/dev/net/tun"
TUNSETIFF: Final = 0x400454CA
POINT_TO_POINT: Final = 0x0001
WITHOUT_HEADER: Final = 0x1000
LONGEST_PACKET: Final = 65_536
LOOK_SECONDS: Final = 0.2


@dataclass
class Weather:
    """What becomes of a packet."""

    longest_seconds: float
    """It takes any time up to this."""
    lost: float
    """How probable it is that it never arrives,"""
    doubled: float
    """and that it does twice."""
    chance: random.Random
    seen: Counter[str] = field(default_factory=Counter)

    def crossings(self) -> Iterator[float]:
        """How long each copy of a packet takes."""
        fate = self.chance.random()
        copies = 0 if fate < self.lost else 2 if fate < self.lost + self.doubled else 1
        self.seen[("lost", "once", "doubled")[copies]] += 1
        return (self.chance.uniform(0, self.longest_seconds) for _ in range(copies))


@contextmanager
def strait(unproven: str, weather: Weather) -> Iterator[Island]:
    """An island that is reached by a strait with such weather, and nothing else."""
    if not Path(TUN).exists():
        pytest.skip(f"not proven: {unproven} (there is no {TUN})")
    with island(unproven, routed=False) as place:
        shore, isle = f"cwshore{place.number}", f"cwisle{place.number}"
        ends, ended = [_device(shore), _device(isle)], threading.Event()
        ferry = threading.Thread(target=_ferry, args=(ends, weather, ended), daemon=True)
        ferry.start()
        try:
            reached(place, shore, isle)
            yield place
        finally:
            ended.set()
            ferry.join()
            for end in ends:
                os.close(end)


def _device(name: str) -> int:
    end = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), POINT_TO_POINT | WITHOUT_HEADER))
    return end


def _ferry(ends: list[int], weather: Weather, ended: threading.Event) -> None:
    under_way: list[tuple[float, int, int, bytes]] = []
    number, poll = count(), select.poll()
    for end in ends:
        poll.register(end, select.POLLIN)
    across = dict(zip(ends, reversed(ends), strict=True))
    while not ended.is_set():
        pause = max(0.0, min(LOOK_SECONDS, under_way[0][0] - time.monotonic())) if under_way else LOOK_SECONDS
        for end, _ in poll.poll(pause * 1_000):
            packet = os.read(end, LONGEST_PACKET)
            for takes in weather.crossings():
                heapq.heappush(under_way, (time.monotonic() + takes, next(number), across[end], packet))
        while under_way and under_way[0][0] <= time.monotonic():
            *_, end, packet = heapq.heappop(under_way)
            os.write(end, packet)
