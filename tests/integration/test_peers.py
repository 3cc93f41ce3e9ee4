"""Workers of one service know of each other what their database knows: who is gone, and nothing of who is slow."""

import asyncio
from collections.abc import Callable

import pytest

from libs.common.database import opened
from libs.common.messaging.hints import Hints
from libs.common.messaging.peers import MISSED_SECONDS, SETTLED_SECONDS, Peers
from tests.shared.toy import Toy

PATIENCE_SECONDS = 300


@pytest.fixture
async def toy(admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str]) -> Toy:
    toy = Toy(admin_url, bootstrap_servers, fresh_prefix("peers"))
    await toy.prepare()
    return toy


async def test_a_worker_whose_connection_ends_is_found_dead_by_each_of_the_others_once(toy: Toy) -> None:
    everybody = [Peers("toy") for _ in range(3)]
    hints = [Hints(toy.listening_url, peers=each) for each in everybody]
    for each in hints:
        await each.start()
    first, second, doomed = everybody
    busy = asyncio.create_task(_always_says_something(hints[0]))
    await asyncio.sleep(SETTLED_SECONDS + 1)
    await hints[2].close()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await first.gone.get() == await second.gone.get() == {doomed.client_id}
    await asyncio.sleep(2 * MISSED_SECONDS)
    busy.cancel()
    for each in hints[:2]:
        await each.close()
    assert first.gone.empty(), "nobody dies twice"
    assert second.gone.empty()


async def test_a_worker_that_comes_back_does_not_wait_until_its_connection_of_before_has_been_missed(toy: Toy) -> None:
    mine = Peers("toy")
    before, after = [await opened(toy.url("app"), settings={}) for _ in range(2)]
    await mine.enter(before)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await mine.enter(after)
    await before.close()
    await after.close()


async def _always_says_something(hints: Hints) -> None:
    while True:
        hints.give(outbox=False, changed=["something"])
        await asyncio.sleep(0)


def _seen(*looks: tuple[float, set[int]]) -> list[frozenset[str]]:
    """Whom a worker finds dead that sees these at these moments."""
    peers = Peers("toy")
    for moment, living in looks:
        peers.saw(living, moment)
    return [peers.gone.get_nowait() for _ in range(peers.gone.qsize())]


def test_a_worker_is_dead_when_it_was_missed_for_long_enough_and_not_for_a_look_alone() -> None:
    assert _seen((10, {1, 2}), (11, {1})) == []
    assert _seen((10, {1, 2}), (11, {1}), (11.5, {1, 2}), (14, {1}), (14.5, {1})) == []
    assert _seen((10, {1, 2}), (11, {1}), (12.5, {1})) == [{"toy-worker-00000002"}]
    assert _seen((10, {1, 2}), (11, set()), (13, set()), (15, {1}), (16, {1})) == [{"toy-worker-00000001", "toy-worker-00000002"}]
