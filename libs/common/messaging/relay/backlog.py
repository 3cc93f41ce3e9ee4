"""How long the oldest event has waited that is not published, asked of the database, by whoever stands by too.

A relay that is locked out, or cannot log in, knows nothing of events; then what counts is for how long nobody could tell.
"""

import asyncio
import time
from uuid import UUID

import asyncpg

from libs.common.clock import now
from libs.common.database import TRANSIENT
from libs.common.messaging.relay.cursor import connection
from libs.common.telemetry import Gauge

LOOK_SECONDS = 2.0
UNTOLD_SECONDS = 3 * LOOK_SECONDS
"""A look may be late; after so long without one it is the silence that is told."""

UNPUBLISHED_AGE = Gauge("cartwright_relay_unpublished_age_seconds", "Age of the oldest event that is not yet published")

# In the order of transactions, which is that of time but for a long one; the index has it, and one row of each is read.
OLDEST = """WITH reached AS (
    SELECT pg_snapshot_xmax(lo) AS later, ARRAY(SELECT pg_snapshot_xip(lo)) AS under_way FROM outbox_cursor
)
SELECT event_id FROM (
    (SELECT event_id, txid FROM outbox_event WHERE txid >= (SELECT later FROM reached) ORDER BY txid, id LIMIT 1)
    UNION ALL
    (SELECT event_id, txid FROM outbox_event WHERE txid = ANY ((SELECT under_way FROM reached)::xid8[]) ORDER BY txid, id LIMIT 1)
) AS unpublished ORDER BY txid LIMIT 1"""


class Backlog:
    """What has not left yet."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._oldest: float | None = None
        """When the oldest event was made that was not published at the last look."""
        self._looked_at = time.monotonic()
        UNPUBLISHED_AGE.set_function(self.age)

    def age(self) -> float:
        """In seconds; 0 when nothing waits."""
        waited = 0.0 if self._oldest is None else max(0.0, now().timestamp() - self._oldest)
        untold = time.monotonic() - self._looked_at
        return waited if untold < UNTOLD_SECONDS else max(waited, untold)

    async def watch(self) -> None:
        """Look now and then, for ever. Why nobody can is the relay's to say, who tries the same."""
        while True:
            try:
                async with connection(self._url, synchronous_commit="off") as session:
                    while True:
                        self._seen(await session.fetchval(OLDEST))
                        await asyncio.sleep(LOOK_SECONDS)
            except (*TRANSIENT, asyncpg.PostgresError):
                await asyncio.sleep(LOOK_SECONDS)

    def _seen(self, event_id: UUID | None) -> None:
        self._oldest = None if event_id is None else event_id.int / (1000 << 80)  # a UUIDv7 begins with its time
        self._looked_at = time.monotonic()
