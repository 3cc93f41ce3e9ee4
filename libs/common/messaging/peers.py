"""Which workers of a service live: their database knows at once, and Kafka ten seconds later.

Kafka gives up a member that says nothing for its session's length, and no sooner without giving up members of a busy machine
too. PostgreSQL notices when a process is gone, because its connections are closed, and never because it is slow. So a worker
holds a lock for as long as it lives, and whoever misses one that was held has its owner leave Kafka's groups.

It is a hint: a machine that is cut off is not missed before its connections are given up, and Kafka's ten seconds are as long.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import structlog

from libs.common.database import Connection
from libs.common.telemetry import Counter

LOCK_CLASS: Final = 0x63617274
"""The first half of our locks' keys; the second is the worker's number."""
LOOK_SECONDS: Final = 0.25
"""So often a worker looks that is not alone. One that is alone looks when it has nothing else to say."""
MISSED_SECONDS: Final = 0.75
"""So long a worker is missed before it is dead: a connection that broke is back after half a second."""
SETTLED_SECONDS: Final = 5.0
"""After its own connection was new for so long, a worker believes what it misses: a server that starts has lost everybody's."""

HOLD: Final = f"SELECT pg_advisory_lock_shared({LOCK_CLASS}, $1)"
"""Shared with oneself: the connection before may still be there for the server, long after a network has lost it."""
LIVING: Final = f"""SELECT objid::bigint AS number FROM pg_locks
WHERE locktype = 'advisory' AND classid = {LOCK_CLASS} AND objsubid = 2 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""  # noqa: S608 - our own constant

GONE = Counter("cartwright_workers_gone_total", "Workers of this service that were found dead before Kafka missed them")

log = structlog.get_logger(__name__)


class Peers:
    """One worker among those of its service."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._number = secrets.randbelow(2**31)
        self._missed: dict[int, float | None] = {}
        """Everybody else that was seen, and since when they are missed."""
        self._settled_at = 0.0
        self.gone: asyncio.Queue[frozenset[str]] = asyncio.Queue()
        """Those who were found dead, as Kafka's clients."""

    @property
    def client_id(self) -> str:
        """As whom this worker is known to Kafka."""
        return _client(self._service, self._number)

    @property
    def pause(self) -> float | None:
        """When to look again; None when nobody else is known."""
        return LOOK_SECONDS if self._missed else None

    async def enter(self, connection: Connection) -> None:
        """Be there for as long as this connection is. What was known of others was seen on another, and is forgotten."""
        await connection.execute(HOLD, self._number)
        self._missed.clear()
        self._settled_at = time.monotonic() + SETTLED_SECONDS

    async def look(self, connection: Connection) -> None:
        """See who is there, and who is not any more."""
        self.saw({row["number"] for row in await connection.fetch(LIVING)}, time.monotonic())

    def saw(self, living: Collection[int], moment: float) -> None:
        """Draw conclusions from who lives at this moment."""
        self._missed |= dict.fromkeys((number for number in living if number != self._number), None)
        for number in self._missed.keys() - living:
            self._missed[number] = self._missed[number] or moment
        dead = {number for number, since in self._missed.items() if since is not None and moment - since > MISSED_SECONDS}
        if not dead:
            return
        for number in dead:
            del self._missed[number]
        if moment > self._settled_at:
            self.gone.put_nowait(frozenset(_client(self._service, number) for number in dead))


async def see_off(peers: Peers, expel: Callable[[Collection[str]], Awaitable[None]]) -> None:
    """Have those who died leave their groups, so that their partitions are divided anew."""
    while True:
        dead = await peers.gone.get()
        GONE.inc(len(dead))
        log.warning("peers.gone", workers=sorted(dead), action="their partitions are divided among those who live")
        await expel(dead)


def _client(service: str, number: int) -> str:
    return f"{service}-worker-{number:08x}"
