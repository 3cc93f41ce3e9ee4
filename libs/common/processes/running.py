"""What both kinds of process do: say who they are and whether they are ready, and end what is under way."""

import asyncio
import os
import platform
import threading
from collections.abc import Sequence
from contextlib import suppress

import structlog

from libs.common.database import Connection, opened
from libs.common.revocations import Revocations
from libs.common.settings import Settings
from libs.common.telemetry import configure_logging
from libs.common.version import VERSION

PUT_AWAY_SECONDS = 10
"""After the time that requests have to end: for connections, consumers and jobs. With ten before it fits Kubernetes' thirty."""

ANSWER_SECONDS = 1
"""So long a probe waits for the database."""
EVER_MIGRATED = "SELECT to_regclass('alembic_version') IS NOT NULL"

log = structlog.get_logger(__name__)


def begin(service: str, process: str, settings: Settings) -> None:
    """Say who this is and how it is set up: the first line of every process."""
    run_in_full_slices()
    configure_logging(settings.log_level, settings.log_format, service=service, process=process)
    log.info("process.started", version=VERSION, python=platform.python_version(), settings=settings.model_dump(mode="json"))


def run_in_full_slices() -> None:
    """Have no one who wakes up interrupt us, nor us them: where processes outnumber cores, switching is what costs.

    Needs no rights. Where it cannot be had, nothing else differs.
    """
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def leave_within(seconds: float) -> None:
    """Have this process end by then, whatever holds it up: a broker that is away, a provider that does not answer.

    Nothing is lost by that which would not survive a crash. Whoever sent the signal would have the last word otherwise.
    """

    def cut_off() -> None:
        log.error("process.cut_off", seconds=seconds, action="none: what was under way is taken up by another process")
        os._exit(1)

    timer = threading.Timer(seconds, cut_off)
    timer.daemon = True
    timer.start()


def leave_in_time(settings: Settings) -> None:
    """The same, in the time that requests have to end and what is put away after them."""
    leave_within(settings.drain_seconds + PUT_AWAY_SECONDS)


class DatabaseReady:
    """Whether the database answers, and was ever migrated, asked on a connection of its own: a pool in use is no fault."""

    def __init__(self, url: str, application: str) -> None:
        self._url = url
        self._application = application
        self._connection: Connection | None = None
        self._asking = asyncio.Lock()

    async def __call__(self) -> str | None:
        """What is missing."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._asking:
                found = await (await self._connected()).fetchval(EVER_MIGRATED)
        except Exception as error:  # noqa: BLE001 - whatever it is, we are not ready
            self.close()
            return f"database: {str(error) or type(error).__name__}"
        return None if found else "database: it was never migrated; run ./cartwright migrate"

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            settings = {"application_name": f"{self._application}-ready"}
            self._connection = await opened(self._url, timeout=ANSWER_SECONDS, settings=settings)
        return self._connection

    def close(self) -> None:
        """Let go of it, without a word."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def revocations_known(revocations: Revocations) -> str | None:
    """Why this process should not take part yet: it could not judge tokens of before it began."""
    return "it is not known yet what was revoked" if revocations.is_awaited else None


async def ended(tasks: Sequence["asyncio.Task[None]"]) -> None:
    """End what is still under way; how it ended is for whoever waits for it to say."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
