"""Every process goes by its database's clock: leases, holds and timers lie there, and are compared with it."""

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from libs.common import clock
from libs.common.telemetry import Gauge

if TYPE_CHECKING:
    import asyncpg

ASK: Final = "SELECT clock_timestamp()"
DOUBTFUL_SECONDS: Final = 1.0
"""An answer that took longer says too little."""
TOLD: Final = timedelta(seconds=5)
"""A clock that is further off than this is told of: that is no drift, somebody has to look at the machine."""

APART = Gauge("cartwright_clock_apart_seconds", "How far this machine's clock is ahead of its database's, by which it goes")

log = structlog.get_logger(__name__)


async def keep_time(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Go by the clock of this connection's server."""
    asked = time.monotonic()
    theirs = await connection.fetchval(ASK)
    took = time.monotonic() - asked
    if took > DOUBTFUL_SECONDS:
        return
    before, ahead = clock.correction(), clock.go_by(theirs + timedelta(seconds=took / 2))
    APART.set(ahead.total_seconds())
    if clock.correction() != before and abs(ahead) > TOLD:
        log.error(
            "clock.apart",
            seconds=round(ahead.total_seconds(), 1),
            action="have this machine's clock set (NTP), or the database's: this process goes by that meanwhile",
        )
