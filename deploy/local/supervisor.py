"""Keeps a stack running until it is told to stop: what `./cartwright up` is, in the foreground or behind it."""

import asyncio
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Final

from deploy.local.description import StackDescription
from deploy.local.environment import python
from deploy.local.errors import StackError
from deploy.local.stack import Stack
from deploy.local.state import Home, appending

INTERRUPTED: Final = 130

BEHIND: Final = ("--behind",)
"""The option of `up` that tells it to be the process behind another, and to show nothing when it is ready."""

_POLL_SECONDS: Final = 0.1


async def run_until_told(stack: Stack, *, faults: object = None, ready: Callable[[StackDescription], None]) -> int:
    """Start the stack, tell `ready`, stay until Ctrl-C (130), SIGTERM or SIGHUP (0); SIGUSR1 restarts what has died."""
    loop, told = asyncio.get_running_loop(), asyncio.Queue[signal.Signals]()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        loop.add_signal_handler(number, told.put_nowait, number)
    running = asyncio.create_task(_start(stack, faults))
    if (early := await _finished_or_told(running, told)) is not None:
        return early
    ready(stack.description())
    while (number := await told.get()) is signal.SIGUSR1:
        await _heal(stack)
    stopping = asyncio.create_task(stack.stop())
    if await _finished_or_told(stopping, told, cancels=False) is not None:
        await asyncio.gather(*(stack.kill(name) for name in stack.pids()))
        await stopping
    return INTERRUPTED if number is signal.SIGINT else 0


async def _start(stack: Stack, faults: object) -> None:
    await stack.start()
    if faults is not None:
        await stack.put_faults(faults)


async def _finished_or_told(work: asyncio.Task[None], told: asyncio.Queue[signal.Signals], *, cancels: bool = True) -> int | None:
    """Wait for the work; return the exit code if a signal to stop comes first."""
    while not work.done():
        hearing = asyncio.create_task(told.get())
        await asyncio.wait({work, hearing}, return_when=asyncio.FIRST_COMPLETED)
        if not hearing.done():
            hearing.cancel()
        elif (number := hearing.result()) is not signal.SIGUSR1:
            if cancels:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
            return INTERRUPTED if number is signal.SIGINT else 0
    await work
    return None


async def _heal(stack: Stack) -> None:
    try:
        await stack.heal()
    except StackError as error:
        # Whoever asked for it reads the answer here.
        stack.home.record(failure={"at": time.time(), "message": str(error)})


def start_in_background(home: Home, options: Sequence[str], say: Callable[[str], None]) -> int:
    """Start `up` as a process of its own, pass on what it says until it is ready, and return its exit code or 0."""
    home.prepare()
    log = home.log("up")
    with appending(log) as out, log.open() as heard:
        heard.seek(0, 2)
        process = subprocess.Popen(
            python("deploy.cli", "up", *options),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        try:
            while not (_is_ready(home, process.pid) or process.poll() is not None):
                _pass_on(heard.read(), say)
                time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            return INTERRUPTED
        _pass_on(heard.read(), say)
        return process.returncode or 0


def _is_ready(home: Home, pid: int) -> bool:
    return home.holder() == pid and home.read().get("phase") == "ready"


def _pass_on(text: str, say: Callable[[str], None]) -> None:
    for line in text.splitlines():
        say(line)
