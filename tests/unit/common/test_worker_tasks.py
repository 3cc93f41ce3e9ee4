"""No task of a worker ends without the worker saying so, and ending with it."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from libs.common.processes.worker import _until_something_ends


@pytest.fixture
async def told_to_leave() -> AsyncIterator[asyncio.Event]:
    """Set when this process is told to end, as its server would hear it."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    yield told
    loop.remove_signal_handler(signal.SIGTERM)


async def _serves(told: asyncio.Event) -> None:
    await told.wait()


async def _fails() -> None:
    raise RuntimeError("it came to grief")


@pytest.mark.parametrize("name", ["consumer", "operate"])
async def test_a_worker_whose_task_comes_to_grief_says_which_and_ends_and_a_consumer_that_has_begun_is_no_grief(
    told_to_leave: asyncio.Event, name: str
) -> None:
    serving = asyncio.create_task(_serves(told_to_leave), name="http")
    begun = asyncio.create_task(asyncio.sleep(0), name="consumer")
    await begun
    tasks: list[asyncio.Task[Any]] = [serving, begun]
    with capture_logs() as lines:
        working = asyncio.create_task(_until_something_ends(tasks))
        await asyncio.sleep(0.05)
        assert not working.done(), "it consumes from now on"
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        failed = asyncio.create_task(_fails(), name=name)
        with pytest.raises(RuntimeError, match="it came to grief"):
            async with asyncio.timeout(5):
                await _until_something_ends([*tasks, failed])
    assert told_to_leave.is_set()
    assert [(line["event"], line["task"]) for line in lines] == [("worker.task_ended", name)]
