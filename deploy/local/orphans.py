"""Ends what a stack left behind when its `up` was killed and the system could not take the children with it."""

import signal
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from deploy.local.state import Home

if TYPE_CHECKING:
    import psutil

_PATIENCE_SECONDS: Final = 15
_SAME_START_SECONDS: Final = 2


def birth(pid: int) -> float | None:
    """Return when a process started (seconds since the epoch), which tells it from a later one of the same pid."""
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def end_orphans(home: Home) -> list[str]:
    """End every recorded process that still runs, and return their names."""
    import psutil

    recorded = home.read().get("processes", {})
    found = {name: process for name, (pid, born) in recorded.items() if (process := _same(pid, born))}
    for name, process in found.items():
        _send(process, signal.SIGINT if name == "postgres" else signal.SIGTERM)
    _, stubborn = psutil.wait_procs(found.values(), timeout=_PATIENCE_SECONDS)
    _kill(stubborn)
    return list(found)


def _same(pid: int, born: float) -> "psutil.Process | None":
    import psutil

    started = birth(pid)
    if started is None or abs(started - born) > _SAME_START_SECONDS:
        return None
    return psutil.Process(pid)


def _send(process: "psutil.Process", number: signal.Signals) -> None:
    import psutil

    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _kill(processes: Iterable["psutil.Process"]) -> None:
    for process in processes:
        _send(process, signal.SIGKILL)
