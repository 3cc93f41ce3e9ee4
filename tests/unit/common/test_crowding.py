"""How crowded it is, and who lets others go first then."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from libs.common import crowding
from libs.common.crowding import CROWDING, LOOK_SECONDS, Crowding
from libs.common.http.turns import HELD_SECONDS, MEMORY_SECONDS, Turns

LOUD, QUIET = uuid4(), uuid4()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Time, which goes on when it is told to."""
    moment = [1_000.0]
    monkeypatch.setattr("time.monotonic", lambda: moment[0])

    def advance(seconds: float) -> None:
        moment[0] += seconds

    return advance


def test_it_is_as_crowded_as_a_process_waited_of_the_time_in_which_it_wanted_to_run_and_not_at_all_if_nobody_says(
    clock: Callable[[float], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "schedstat"
    monkeypatch.setattr(crowding, "SCHEDSTAT", said)
    said.write_text("5000 5000 7\n")
    crowd = Crowding()
    seen = []
    for told in ("6000 5000 8", "7000 6000 9", "7000 9000 10", "7000 9000 10", "no numbers"):
        said.write_text(told)
        clock(LOOK_SECONDS)
        seen.append(crowd.share())
        said.write_text("0 9000000 11")
        assert crowd.share() == seen[-1], "it is looked at now and then"
        said.write_text(told)
    assert seen == pytest.approx([0, 0.5, 1, 0, 0]), "of the time since"


async def test_in_a_crowd_who_asks_for_more_than_all_other_tenants_waits_a_moment_and_nobody_else_does(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def waits(tenant_id: UUID | None, times: int = 1) -> bool:
        slept.clear()
        for _ in range(times):
            await order.take(tenant_id, "192.0.2.1")
        return bool(slept)

    crowd = [0.5]
    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(CROWDING, "share", lambda: crowd[0])
    order = Turns(time.monotonic)
    assert not await waits(LOUD, 100), "it is alone"
    assert not await waits(None), "a stranger who asks for little"
    assert not await waits(LOUD), "strangers are nobody's excuse to hold up a tenant"
    assert not await waits(QUIET)
    assert await waits(LOUD)
    assert slept == pytest.approx([HELD_SECONDS * 0.5 * 102 / 103])
    assert await waits(None, 200), "more than all tenants"
    crowd[0] = 0.0
    assert not await waits(LOUD), "there is room"
    crowd[0] = 0.5
    clock(MEMORY_SECONDS)
    assert not await waits(LOUD), "the quiet one has gone"
    clock(20 * MEMORY_SECONDS)
    assert not await waits(QUIET, 3), "and all is forgotten"
