"""A child process: started in a session of its own, logged to a file, watched, and gone when its parent is."""

import asyncio
import functools
import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from deploy.local import readiness
from deploy.local.errors import ProcessError
from deploy.local.state import ROOT, appending

_POLL_SECONDS: Final = 0.05
_LOG_LIMIT_BYTES: Final = 50_000_000


class Child:
    """One child process and its log file; it may be started again after it ended."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        stop_signal: signal.Signals = signal.SIGTERM,
        stop_seconds: float = 20,
        on_exit: Callable[["Child"], None] | None = None,
        secrets: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """Describe the process; `on_exit` is called when it ends without having been asked to.

        `secrets` is what it is given besides, which may be another whenever it starts.
        """
        self.name, self.command, self.environment, self.log = name, list(command), dict(environment), log
        self._stop_signal, self._stop_seconds, self._on_exit = stop_signal, stop_seconds, on_exit
        self._secrets = secrets
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Start the process; returns at once, ready or not."""
        self._stopping = False
        _turn_over(self.log)
        with appending(self.log) as log:
            # A session of its own: Ctrl-C in the terminal reaches `up` alone, which stops things in order.
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**self.environment, **self._secrets()},
                start_new_session=True,
            )
        self._watch = asyncio.create_task(self._wait(self._process), name=f"watch {self.name}")

    async def run(self) -> None:
        """Start the process and wait for its end; anything but exit code 0 is a `ProcessError`."""
        await self.start()
        self._stopping = True  # its end is expected
        if self._process and await self._process.wait():
            raise self.ended()

    async def stop(self) -> None:
        """Ask the process to end, and kill it if it does not within its time."""
        process, self._stopping = self._process, True
        if process is None or process.returncode is not None:
            return
        self.send(self._stop_signal)
        try:
            await asyncio.wait_for(process.wait(), self._stop_seconds)
        except TimeoutError:
            self.send(signal.SIGKILL)
            await process.wait()

    async def kill(self) -> None:
        """End the process as a crash would (SIGKILL) and wait until it is gone."""
        self.send(signal.SIGKILL)
        if self._watch:
            await self._watch

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if there is still a process to get it."""
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def ended(self) -> ProcessError:
        """Return the error that says how the process ended."""
        code = self._process.returncode if self._process else None
        how = f"was ended by {signal.Signals(-code).name}" if code and code < 0 else f"ended with exit code {code}"
        return ProcessError(self.name, how, self.log_tail())

    async def until_ready(self, url: str, *, seconds: float = 60) -> None:
        """Return when the URL answers 200; a process that ends or takes too long before is a `ProcessError`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while await readiness.status(url) != readiness.OK:
            if self.pid is None:
                raise self.ended()
            if loop.time() > end:
                raise ProcessError(self.name, f"was not ready after {seconds:.0f} s", self.log_tail())
            await asyncio.sleep(_POLL_SECONDS)

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of the log."""
        try:
            with self.log.open(errors="replace") as log:
                return "".join(deque(log, lines)).rstrip()
        except FileNotFoundError:
            return ""

    async def _wait(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        if self._on_exit and not self._stopping:
            self._on_exit(self)


async def in_parallel(*steps: Coroutine[Any, Any, object]) -> None:
    """Run all steps at once; the first failure cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(step)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


@functools.cache
def dying_with_parent(number: str) -> tuple[str, ...]:
    """Return the command prefix that has the kernel signal a process when its parent dies, even by SIGKILL.

    Only Linux can; elsewhere the next start ends what was left behind (see `orphans.py`).
    """
    return _prefix("setpriv", "--pdeathsig", number, "--")


@functools.cache
def in_full_slices() -> tuple[str, ...]:
    """Return the command prefix of a process that none who wakes up interrupts, as our services have it by themselves.

    Where more is ready to run than there are cores, the same work is done in fewer and fuller pieces.
    """
    return _prefix("chrt", "--batch", "0")


def _prefix(*words: str) -> tuple[str, ...]:
    """Return the words, if this machine knows them."""
    if sys.platform != "linux" or not shutil.which(words[0]):
        return ()
    # Busybox has programs of these names too, without these options.
    works = subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
    return words if works else ()


def _turn_over(log: Path) -> None:
    """Keep one old log file, so that a stack left running for weeks does not fill the disk."""
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
