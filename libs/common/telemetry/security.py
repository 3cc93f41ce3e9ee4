"""The security log: whoever was turned away, and why. Every time is counted; of many alike, a line a minute is written.

A line says whose token or name it was, where from and on which route, and never what was presented. The first of its kind
is written at once; those that follow within the minute are one line with their `count`. So the counts of all lines add up
to what happened, and no flood of guesses fills a disk.
"""

import asyncio
import atexit
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from libs.common.telemetry.metrics import Counter

WINDOW_SECONDS = 60.0
"""How often a line of one cause is written, at most."""
MAX_CAUSES = 200
"""So many are told apart within a window; what comes beyond them is told apart by its reason alone."""

REFUSALS = Counter("cartwright_security_refusals_total", "Callers turned away", ["event", "reason"])

log = structlog.get_logger(__name__)


class Refused(StrEnum):
    """What a caller was refused."""

    LOGIN = "login_failed"
    """A secret, a refresh token or a tenant that proves nothing."""
    TOKEN = "token_refused"  # noqa: S105 - a word, not a secret
    PERMISSION = "permission_refused"
    TENANT = "tenant_mismatch"
    """Another tenant's was asked for by its name."""
    THROTTLED = "throttled"


@dataclass(slots=True)
class _Cause:
    """What happened since the last line."""

    count: int = 0
    members: Mapping[str, str] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None


class SecurityLog:
    """Counts and writes what callers were refused."""

    def __init__(self) -> None:
        self._causes: dict[tuple[str, ...], _Cause] = {}

    def refused(self, event: Refused, reason: str, members: Mapping[str, str]) -> None:
        """Note one refusal. `reason` is one of few words of ours; `members` name who asked (empty ones are left out)."""
        REFUSALS.labels(event.value, reason).inc()
        named = {name: value for name, value in members.items() if value}
        cause: tuple[str, ...] = (event.value, reason, named.get("tenant_id", ""), named.get("address", ""))
        if cause not in self._causes and len(self._causes) >= MAX_CAUSES:
            cause = (event.value, reason)
        open_window = self._causes.get(cause)
        if open_window is not None:
            open_window.count += 1
            open_window.members = named
            return
        _write(event.value, reason, 1, named)
        with suppress(RuntimeError):  # without a loop nobody could close the window, so each has its line
            self._open(cause, asyncio.get_running_loop())

    def _open(self, cause: tuple[str, ...], loop: asyncio.AbstractEventLoop) -> None:
        self._causes[cause] = _Cause(timer=loop.call_later(WINDOW_SECONDS, self._close, cause, loop))

    def _close(self, cause: tuple[str, ...], loop: asyncio.AbstractEventLoop) -> None:
        """Write what came within the window; if something did, another begins."""
        ended = self._causes.pop(cause)
        if ended.count:
            _write(cause[0], cause[1], ended.count, ended.members)
            self._open(cause, loop)

    def flush(self) -> None:
        """Write what has not been written: the process ends."""
        for cause, ended in self._causes.items():
            if ended.timer is not None:
                ended.timer.cancel()
            if ended.count:
                _write(cause[0], cause[1], ended.count, ended.members)
        self._causes.clear()


def _write(event: str, reason: str, count: int, members: Mapping[str, str]) -> None:
    name = f"security.{event}"
    log.warning(name, reason=reason, count=count, **members)


SECURITY = SecurityLog()
"""This process's."""
atexit.register(SECURITY.flush)
