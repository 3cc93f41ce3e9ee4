"""How crowded the processors are, as this process notices it: for those who would rather wait than be in somebody's way."""

import time
from pathlib import Path
from typing import Final

SCHEDSTAT: Final = Path("/proc/self/schedstat")
"""What Linux says of this process's first thread, which is its loop's: how long it ran and how long it waited to, in ns."""
LOOK_SECONDS: Final = 0.1


class Crowding:
    """Looks now and then, however often it is asked."""

    def __init__(self) -> None:
        self._looked_at = time.monotonic()
        self._ran, self._waited = _scheduled()
        self._share = 0.0

    def share(self) -> float:
        """Which part of the time since it last looked, of that in which it wanted to run, it waited. Zero if nobody says."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            ran, waited = _scheduled()
            runs, waits = ran - self._ran, waited - self._waited
            self._looked_at, self._ran, self._waited = now, ran, waited
            self._share = waits / (runs + waits) if waits > 0 else 0.0
        return self._share


def _scheduled() -> tuple[int, int]:
    try:
        ran, waited, _ = SCHEDSTAT.read_text().split()
        return int(ran), int(waited)
    except (OSError, ValueError):  # another system, or one that does not count
        return 0, 0


CROWDING: Final = Crowding()
"""This process's."""
