"""Signs of life. What goes on for ever says now and then that it does; who has said nothing for long hangs.

Everything here that waits for another waits for so long at most, so silence is a fault of ours, and a new process is the cure.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

SILENCE_SECONDS: Final = 300.0
"""Several times the longest that any statement, call or pause takes."""


class Pulse:
    """Of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, float] = {}

    def beat(self, who: str) -> None:
        """Say that this goes on."""
        self._last[who] = self._clock()

    def end(self, who: str) -> None:
        """Say that this is over, or has nothing to do."""
        self._last.pop(who, None)

    @contextmanager
    def during(self, who: str) -> Iterator[None]:
        """What is done inside has an end."""
        self.beat(who)
        try:
            yield
        finally:
            self.end(who)

    def hangs(self) -> str | None:
        """Who has said nothing for too long, and for how long."""
        now = self._clock()
        silent = {who: now - last for who, last in self._last.items() if now - last > SILENCE_SECONDS}
        return ", ".join(f"{who} for {seconds:.0f} s" for who, seconds in silent.items()) or None


PULSE: Final = Pulse()
"""This process's."""
