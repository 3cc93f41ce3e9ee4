"""Timers: what a decision wants to be reminded of, kept in the transaction of the state that needs it.

A handler calls `world.remind`; when the time has come, a worker turns the timer into a command and carries that out like
any other. Firing is a signal and no more: the handler looks at the state as it is by then, and may do nothing. So a timer
whose worker died between acting and saying so fires again, and nothing happens twice. There is one timer a name and key,
and the last word counts; what was set anew while it fired stays set.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog

from libs.common.clock import now
from libs.common.database import fetch, poll
from libs.common.decision import Message
from libs.common.messaging.shell import Failure, Shell, is_dropped, is_elsewhere
from libs.common.telemetry import Counter, Gauge

MAX_FIRED = 500
POLL_SECONDS = 1.0
LEASE = timedelta(seconds=30)

FIRED = Counter("cartwright_timers_fired_total", "Timers whose time came, by what became of them", ["name", "outcome"])
LATE_SECONDS = Gauge("cartwright_timers_late_seconds", "How long the oldest timer that is due has been")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Timer:
    """One timer whose time has come."""

    tenant_id: UUID
    name: str
    key: UUID
    due_at: datetime


Commands = Mapping[str, Callable[[Timer], Any]]
"""What a timer of each name is turned into. Its handler answers in a word what became of it, for the metric."""

DUE = "SELECT tenant_id, name, key, due_at FROM timers_due($1)"

CLAIM = """UPDATE timer t SET free_at = now() + $5::interval
FROM (SELECT c.tenant_id, c.name, c.key
      FROM timer c JOIN unnest($1::uuid[], $2::text[], $3::uuid[], $4::timestamptz[]) AS k(tenant_id, name, key, due_at)
          ON c.tenant_id = k.tenant_id AND c.name = k.name AND c.key = k.key AND c.due_at = k.due_at
      WHERE c.free_at <= now() FOR UPDATE OF c SKIP LOCKED) AS free
WHERE t.tenant_id = free.tenant_id AND t.name = free.name AND t.key = free.key
RETURNING t.tenant_id, t.name, t.key, t.due_at"""

FORGET = "SELECT timers_forget($1, $2, $3, $4)"


async def keep_time(shell: Shell, commands: Commands) -> None:
    """Fire what is due, for ever."""

    async def fire() -> bool:
        return await fire_due(shell, commands) == MAX_FIRED

    await poll(fire, every=POLL_SECONDS, waiting="timers.waiting")


async def fire_due(shell: Shell, commands: Commands) -> int:
    """Fire the timers that are due and in nobody's hands, the longest due first; answers how many."""
    async with shell.database.acquire() as connection:
        due = [Timer(**row) for row in await connection.fetch(DUE, MAX_FIRED)]
    LATE_SECONDS.set(max((now() - min(timer.due_at for timer in due)).total_seconds(), 0) if due else 0)
    if not due:
        return 0
    async with shell.database.transaction(timer.tenant_id for timer in due) as connection:
        claimed = [Timer(**row) for row in await fetch(connection, CLAIM, *_columns(due), LEASE, ends=True)]
    known = [timer for timer in claimed if timer.name in commands]
    for timer in claimed:
        if timer.name not in commands:
            _failed(timer, LookupError("this version has no such timer"))
    if known:
        await _fire(shell, commands, known)
    return len(claimed)


async def _fire(shell: Shell, commands: Commands, timers: Sequence[Timer]) -> None:
    """Carry out their commands together; what fails, or is refused for good, stays due."""
    answers = await shell.execute_each([_message(shell, commands[timer.name](timer), timer) for timer in timers])
    done = [timer for timer, answer in zip(timers, answers, strict=True) if _note(timer, answer)]
    if done:
        async with shell.database.transaction(timer.tenant_id for timer in done) as connection:
            await fetch(connection, FORGET, *_columns(done), ends=True)


def _note(timer: Timer, answer: Any) -> bool:
    """Count what became of it; whether it is done with."""
    if is_elsewhere(answer):
        return False  # it goes along, and becomes due there
    if isinstance(answer, Failure) and not is_dropped(answer):
        _failed(timer, answer.error)
        return False
    FIRED.labels(timer.name, "dropped" if is_dropped(answer) else str(answer)).inc()
    return True


def _message(shell: Shell, command: Any, timer: Timer) -> Message[Any]:
    message_id = f"{timer.name}:{timer.key}:{timer.due_at.isoformat()}"
    return shell.command(command, timer.tenant_id, id=message_id, correlation_id=str(timer.key))


def _failed(timer: Timer, error: Exception) -> None:
    FIRED.labels(timer.name, "failed").inc()
    log.error(
        "timer.failed",
        timer=timer.name,
        key=str(timer.key),
        tenant_id=str(timer.tenant_id),
        error=f"{type(error).__name__}: {error}",
        action=f"it fires again in {LEASE.total_seconds():.0f} seconds",
    )


def _columns(timers: Sequence[Timer]) -> list[list[Any]]:
    return [
        [timer.tenant_id for timer in timers],
        [timer.name for timer in timers],
        [timer.key for timer in timers],
        [timer.due_at for timer in timers],
    ]
