"""How fast what others send is taken while something of our own is under way.

A feed of a hundred thousand products is nobody's purchase: it may take a while, and must not take the processor and the
database from those who are buying. So after each of its transactions a feed rests, as long as it worked, and longer the
more this process has to wait for a processor; when nobody else has anything to do it does not rest at all.
"""

import asyncio
import time
from typing import Final

from libs.common.crowding import CROWDING

RESTS: Final = 1.0
"""So many times as long as it worked: half of the time is left to others."""
RESTS_CROWDED: Final = 12.0
"""So many times more when this process is never let on at once: others need what it would take."""
LEAST_SECONDS, LONGEST_SECONDS = 0.02, 1.0
"""What comes meanwhile is taken together, so that a stream of single events is not a stream of transactions."""
BUSY_SECONDS: Final = 2.0
"""So long after one of our own messages others are likely."""


class Pace:
    """Of one process: all that reads in it."""

    def __init__(self) -> None:
        self._own_at = -BUSY_SECONDS

    def own(self) -> None:
        """Something of our own has come."""
        self._own_at = time.monotonic()

    async def rest(self, worked_seconds: float) -> None:
        """After so much work on what others sent."""
        if time.monotonic() - self._own_at < BUSY_SECONDS:
            times = RESTS + RESTS_CROWDED * CROWDING.share()
            await asyncio.sleep(min(max(times * worked_seconds, LEAST_SECONDS), LONGEST_SECONDS))


PACE: Final = Pace()
"""This process's: whatever reads in it shares its loop."""
