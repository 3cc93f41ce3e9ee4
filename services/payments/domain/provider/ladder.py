"""The ladder of waits between two tries of what the provider leaves open."""

from datetime import timedelta

WAITS = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 3_600, 21_600))


def wait_after(tries: int) -> timedelta:
    """How long to wait when so many have come to nothing; the last wait repeats."""
    return WAITS[min(tries, len(WAITS)) - 1]
