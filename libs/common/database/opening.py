"""How a connection is opened with an address as it is given: who is trusted, and what stands before the server."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs, urlsplit

import asyncpg

from libs.common.addresses import address
from libs.common.database.timing import keep_time
from libs.common.errors import UnavailableError
from libs.common.silence import SESSION, Loop

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

NEXT_SERVER_SECONDS: Final = 2
"""So long one server of several may take to accept a connection before the next one is asked: whoever waits, waits for five."""
UNPREPARED: Final = {"statement_cache_size": 0}
UNCONNECTED = (OSError, TimeoutError, ValueError, asyncpg.PostgresError)
"""What an address comes to that leads nowhere, or is none. OpenSSL's errors are among them."""

AT_ONCE: Final = frozenset({"application_name"})
"""Settings that a connection may begin with through every pool."""


async def opened(
    url: str, *, settings: Mapping[str, str], connect: Callable[..., Any] | None = None, **options: Any
) -> Connection:
    """A connection with these settings, as far as its pool lets it have any. `connect` is asyncpg's unless it is given."""
    plain, pooling = address(url)
    if pooling == "transaction":
        connect, options = None, options | UNPREPARED
    settings = {**SESSION, **settings}
    loop = Loop(asyncio.get_running_loop(), NEXT_SERVER_SECONDS if _are_several(plain) else None)
    begins = settings if pooling == "none" else {name: settings[name] for name in AT_ONCE & settings.keys()}
    try:
        connection: Connection = await (connect or asyncpg.connect)(plain, loop=loop, server_settings=dict(begins), **options)
    except asyncpg.ProtocolViolationError as error:
        if "startup parameter" not in str(error):
            raise
        message = f"a pool stands before it: say pooling=session or pooling=transaction in the address, as it lends ({error})"
        raise ValueError(message) from error
    later = {name: value for name, value in settings.items() if name not in begins}
    try:
        if pooling == "session" and later:
            await connection.fetch(
                "SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS each (name, value)",
                [*later],
                [*later.values()],
            )
        await keep_time(connection)
    except BaseException:
        connection.terminate()
        raise
    return connection


def _are_several(url: str) -> bool:
    """Whether an address names more than one server."""
    parts = urlsplit(url)
    return "," in parts.netloc.rpartition("@")[2] or any("," in each for each in parse_qs(parts.query).get("host", ()))


def unconnected(error: BaseException) -> UnavailableError:
    """What is told when there is no first connection."""
    reason = str(error) or type(error).__name__
    return UnavailableError("database-unavailable", f"cannot connect with the given database URL: {reason}")
