"""Of many lines about one fault the first are written, and then one a minute that says how many were not.

A row that nobody can read, or a feed of refused messages, makes tens of thousands of lines a minute, and the one that says
something else drowns. Lines are alike when they have the same name and name the same cause. What is money is never left
out, and the security log counts for itself.
"""

import asyncio
import time
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

FIRST = 20
"""So many alike are written within a window."""
WINDOW_SECONDS = 60.0
MAX_CAUSES = 500
"""So many are told apart; what comes beyond them is told apart by its name alone."""

CAUSE: Final = ("group", "topic", "state", "reason", "task", "kind")
LIMITED_LEVELS: Final = frozenset({"warning", "error", "critical"})
LIMITED_NAMES: Final = frozenset({"inbox.refused", "transaction.retried"})
"""Of any level."""
EACH_COUNTS: Final = ("security.", "orphan_money.", "payment.", "operation.", "order.", "refund.", "inbox.source_")
SUMMARY: Final = "suppressed"

Line = MutableMapping[str, Any]


@dataclass(slots=True)
class _Window:
    """What was written of one cause since it opened, and what was not."""

    opened: float
    written: int = 0
    left_out: int = 0
    last: dict[str, Any] = field(default_factory=dict)
    level: str = "warning"
    has_timer: bool = False


class Calm:
    """A processor of structlog that lets through what is news."""

    def __init__(self, *, first: int = FIRST, window_seconds: float = WINDOW_SECONDS) -> None:
        self._first = first
        self._seconds = window_seconds
        self._windows: dict[tuple[str, ...], _Window] = {}

    def __call__(self, _logger: object, method: str, line: Line) -> Line:
        """The line; raises DropEvent when enough alike have been written."""
        name = str(line.get("event"))
        if SUMMARY in line or name.startswith(EACH_COUNTS) or (method not in LIMITED_LEVELS and name not in LIMITED_NAMES):
            return line
        cause = (name, *(str(line.get(member, "")) for member in CAUSE))
        if cause not in self._windows and len(self._windows) >= MAX_CAUSES:
            self._forget_old()
            cause = cause if len(self._windows) < MAX_CAUSES else (name,)
        window = self._windows.setdefault(cause, _Window(time.monotonic()))
        if time.monotonic() - window.opened >= self._seconds and not window.has_timer:
            if window.left_out:
                line[SUMMARY] = window.left_out
            self._windows[cause] = window = _Window(time.monotonic())
        if window.written < self._first:
            window.written += 1
            return line
        self._leave_out(cause, window, method, line)
        raise structlog.DropEvent

    def _leave_out(self, cause: tuple[str, ...], window: _Window, method: str, line: Line) -> None:
        window.left_out += 1
        window.level, window.last = method, {name: value for name, value in line.items() if name != "exc_info"}
        if not window.has_timer:
            with suppress(RuntimeError):  # without a loop the next line after the window says it
                asyncio.get_running_loop().call_later(self._seconds, self._close, cause)
                window.has_timer = True

    def _close(self, cause: tuple[str, ...]) -> None:
        """Say how many were left out; while they keep coming, one line a window is all there is."""
        window = self._windows.pop(cause, None)
        if window is None or not window.left_out:
            return
        members = {**window.last, SUMMARY: window.left_out}
        self._windows[cause] = _Window(time.monotonic(), written=self._first)
        getattr(structlog.get_logger(__name__), window.level)(members.pop("event"), **members)

    def _forget_old(self) -> None:
        now = time.monotonic()
        self._windows = {
            cause: window
            for cause, window in self._windows.items()
            if window.has_timer or now - window.opened < self._seconds or window.left_out
        }
