"""When a connection is given up because nothing comes on it any more.

A network that loses packets closes nothing. Whoever has sent something then waits a quarter of an hour for it to be acknowledged,
whoever only listens waits for ever, and what the other side holds for us (a lock, a transaction, a share of the partitions) it
holds for two hours. So each side asks the other's kernel, which answers however busy its process is.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

GIVEN_UP_SECONDS: Final = 10
"""So long what was sent may stay unacknowledged: as long as a lease of the relay and a session with Kafka."""
ASKED_AFTER_SECONDS: Final = 5
ASKED_EVERY_SECONDS: Final = 2
ASKED_TIMES: Final = (GIVEN_UP_SECONDS - ASKED_AFTER_SECONDS) // ASKED_EVERY_SECONDS

_OPTIONS: Final = {
    "TCP_KEEPIDLE": ASKED_AFTER_SECONDS,
    "TCP_KEEPALIVE": ASKED_AFTER_SECONDS,  # as macOS calls it
    "TCP_KEEPINTVL": ASKED_EVERY_SECONDS,
    "TCP_KEEPCNT": ASKED_TIMES,
    "TCP_USER_TIMEOUT": GIVEN_UP_SECONDS * 1_000,  # Linux alone
}

SESSION: Final = {
    "tcp_keepalives_idle": str(ASKED_AFTER_SECONDS),
    "tcp_keepalives_interval": str(ASKED_EVERY_SECONDS),
    "tcp_keepalives_count": str(ASKED_TIMES),
    "tcp_user_timeout": str(GIVEN_UP_SECONDS * 1_000),
}
"""The same for PostgreSQL's side, as settings of a session."""


def end_in_silence(transport: asyncio.BaseTransport) -> None:
    """Have the kernel give this connection up when the other side's says nothing. One that stays on this machine needs none."""
    sock: Any = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Loop:
    """The running loop, but what it connects ends when the other side falls silent."""

    def __init__(self, loop: Any, connect_seconds: float | None = None) -> None:
        """Wrap a loop, which waits only so long for a connection to be accepted: as long as TCP does, unless told."""
        self._loop = loop
        self._connect_seconds = connect_seconds
        # What each statement asks for.
        self.create_future, self.call_later, self.time = loop.create_future, loop.call_later, loop.time

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(self, factory: Callable[[], Any], *where: Any, **options: Any) -> tuple[Any, Any]:
        """Connect as the loop does. Raises TimeoutError when it was not accepted in time."""
        async with asyncio.timeout(self._connect_seconds):
            transport, protocol = await self._loop.create_connection(factory, *where, **options)
        end_in_silence(transport)
        return transport, protocol
