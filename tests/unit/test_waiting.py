"""Asking again and again: how often, and when it is given up."""

from collections.abc import Iterable

import pytest

from deploy.cli import waiting
from deploy.cli.waiting import asked_again


class Hand:
    """A clock that goes on while somebody rests, and never else: no busy machine makes a pause longer."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return sum(self.pauses)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


@pytest.fixture(autouse=True)
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    hand = Hand()
    monkeypatch.setattr(waiting, "time", hand)
    monkeypatch.setattr(waiting, "asyncio", hand)
    return hand


class Counts:
    """Answers one count after another, the last one for ever."""

    def __init__(self, counts: Iterable[int]) -> None:
        self._counts = list(counts)
        self.asked = 0

    async def read(self) -> int:
        self.asked += 1
        return self._counts.pop(0) if len(self._counts) > 1 else self._counts[0]


async def test_it_ends_once_nothing_is_left() -> None:
    counts = Counts([2, 1, 0, 7])
    assert await asked_again(counts.read, int, patience_seconds=60, pause_seconds=1) == 0
    assert counts.asked == 3


async def test_what_is_there_already_is_asked_for_once_and_not_waited_for(hand: Hand) -> None:
    counts = Counts([0])
    assert await asked_again(counts.read, int, patience_seconds=60, pause_seconds=60) == 0
    assert (counts.asked, hand.pauses) == (1, [])


async def test_when_patience_ends_what_was_read_last_is_returned(hand: Hand) -> None:
    counts = Counts([5])
    assert await asked_again(counts.read, int, patience_seconds=20, pause_seconds=1) == 5
    assert (counts.asked, hand.monotonic()) == (22, 21), "it asks for the last time after patience has ended"


async def test_patience_begins_anew_with_every_step_forward_and_with_none_back(hand: Hand) -> None:
    # Each of nine steps takes a third of the patience; then it goes up and down for ever.
    counts = Counts([9, 8, 7, 6, 5, 4, 3, 2, 1, *[3, 2] * 50])
    assert await asked_again(counts.read, int, patience_seconds=15, pause_seconds=5) in {2, 3}
    assert hand.monotonic() == 8 * 5 + 15 + 5


async def test_pauses_double_up_to_the_longest(hand: Hand) -> None:
    counts = Counts([1, 1, 1, 1, 1, 0])
    await asked_again(counts.read, int, patience_seconds=60, pause_seconds=2, longest_pause_seconds=8)
    assert hand.pauses == [2, 4, 8, 8, 8]
