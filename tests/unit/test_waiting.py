"""Asking again and again: how often, and when it is given up."""

import time
from collections.abc import Iterable

from deploy.cli.waiting import asked_again


class Counts:
    """Answers one count after another, the last one for ever; remembers when it was asked."""

    def __init__(self, counts: Iterable[int]) -> None:
        self._counts = list(counts)
        self.asked_at: list[float] = []

    async def read(self) -> int:
        self.asked_at.append(time.monotonic())
        return self._counts.pop(0) if len(self._counts) > 1 else self._counts[0]

    @property
    def pauses(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.asked_at, self.asked_at[1:], strict=False)]


async def test_it_ends_once_nothing_is_left() -> None:
    counts = Counts([2, 1, 0, 7])
    assert await asked_again(counts.read, int, patience_seconds=60, pause_seconds=0.001) == 0
    assert len(counts.asked_at) == 3


async def test_what_is_there_already_is_asked_for_once_and_not_waited_for() -> None:
    counts = Counts([0])
    assert await asked_again(counts.read, int, patience_seconds=60, pause_seconds=60) == 0
    assert len(counts.asked_at) == 1


async def test_when_patience_ends_what_was_read_last_is_returned() -> None:
    counts = Counts([5])
    begun = time.monotonic()
    assert await asked_again(counts.read, int, patience_seconds=0.2, pause_seconds=0.01) == 5
    assert time.monotonic() - begun > 0.2
    assert len(counts.asked_at) > 2


async def test_patience_begins_anew_with_every_step_forward_and_with_none_back() -> None:
    # Each of nine steps takes a third of the patience; then it goes up and down for ever.
    counts = Counts([9, 8, 7, 6, 5, 4, 3, 2, 1, *[3, 2] * 50])
    begun = time.monotonic()
    assert await asked_again(counts.read, int, patience_seconds=0.15, pause_seconds=0.05) in {2, 3}
    assert time.monotonic() - begun > 0.05 * 8 + 0.15
    assert len(counts.asked_at) < 40


async def test_pauses_double_up_to_the_longest() -> None:
    counts = Counts([1, 1, 1, 1, 1, 0])
    await asked_again(counts.read, int, patience_seconds=60, pause_seconds=0.02, longest_pause_seconds=0.08)
    assert all(pause >= least for pause, least in zip(counts.pauses, [0.02, 0.04, 0.08, 0.08, 0.08], strict=True))
    assert sum(counts.pauses) < 10
