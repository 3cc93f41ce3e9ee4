"""A feed gives way to what is our own, and to nobody else."""

import asyncio

import pytest

from libs.common.crowding import CROWDING
from libs.common.messaging.inbox.pace import BUSY_SECONDS, LEAST_SECONDS, LONGEST_SECONDS, RESTS, RESTS_CROWDED, Pace


@pytest.fixture
def rested(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was rested, in turn; time itself stands still."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return slept


async def test_a_feed_rests_while_something_of_our_own_is_under_way_and_goes_on_at_once_when_nothing_is(
    rested: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CROWDING, "share", lambda: 0.0)
    moment = [1_000.0]
    monkeypatch.setattr("time.monotonic", lambda: moment[0])
    pace = Pace()
    await pace.rest(5.0)
    assert rested == [], "nobody else has anything to do"
    pace.own()
    for worked in (0.001, 0.1, 60.0):
        await pace.rest(worked)
    assert rested == [LEAST_SECONDS, RESTS * 0.1, LONGEST_SECONDS]
    moment[0] += BUSY_SECONDS
    await pace.rest(5.0)
    assert len(rested) == 3, "those who were buying have gone"


async def test_the_more_a_process_waits_for_a_processor_the_longer_a_feed_leaves_it_to_others(
    rested: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = Pace()
    pace.own()
    for share in (0.0, 0.5, 1.0):
        monkeypatch.setattr(CROWDING, "share", lambda share=share: share)
        await pace.rest(0.05)
    assert [each / 0.05 - RESTS for each in rested] == pytest.approx([0, RESTS_CROWDED / 2, RESTS_CROWDED])
