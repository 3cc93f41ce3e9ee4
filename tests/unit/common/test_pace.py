"""A feed gives way to what is our own, and to nobody else."""

import asyncio

import pytest

from libs.common.messaging.inbox.pace import BUSY_SECONDS, LEAST_SECONDS, LONGEST_SECONDS, RESTS, Pace


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
