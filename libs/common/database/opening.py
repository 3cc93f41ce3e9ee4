"""How a connection is opened with an address as it is given: who is trusted, and what stands before the server.

An address is what libpq takes: several servers, `target_session_attrs`, `sslmode` and its files. One parameter is ours,
`pooling`: `session` or `transaction`, as the pool between us and the server (pgbouncer, for example) lends connections.
Such a pool refuses settings that a connection begins with. For a session it lets us make them afterwards; for a transaction
nothing may be left behind on a connection, so none are made, nothing is prepared, and what needs a session goes elsewhere.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg

from libs.common.errors import UnavailableError

Pooling = Literal["none", "session", "transaction"]
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
UNPREPARED: Final = {"statement_cache_size": 0}
UNCONNECTED = (OSError, TimeoutError, ValueError, asyncpg.PostgresError)
"""What an address comes to that leads nowhere, or is none. OpenSSL's errors are among them."""

AT_ONCE: Final = frozenset({"application_name"})
"""Settings that a connection may begin with through every pool."""


def address(url: str) -> tuple[str, Pooling]:
    """The address as asyncpg takes it, and how it is pooled. Raises ValueError with a line that says what is wrong with it."""
    parts = urlsplit(url)
    asked = parse_qsl(parts.query, keep_blank_values=True)
    for name, value in asked:
        if name in FILES:
            try:
                Path(value).read_bytes()
            except OSError as error:
                raise ValueError(f"its {name} names {value}, which cannot be read: {error.strerror}") from error
    if "pooling" not in dict(asked):
        return url, "none"
    pooling: Pooling = dict(asked)["pooling"]  # type: ignore[assignment]  # that is seen next
    if pooling not in get_args(Pooling):
        raise ValueError(f"its pooling is {pooling!r}, which is none of {', '.join(get_args(Pooling))}")
    return parts._replace(query=urlencode([each for each in asked if each[0] != "pooling"])).geturl(), pooling


async def opened(
    url: str, *, settings: Mapping[str, str], connect: Callable[..., Any] | None = None, **options: Any
) -> Connection:
    """A connection with these settings, as far as its pool lets it have any. `connect` is asyncpg's unless it is given."""
    plain, pooling = address(url)
    if pooling == "transaction":
        connect, options = None, options | UNPREPARED
    begins = settings if pooling == "none" else {name: settings[name] for name in AT_ONCE & settings.keys()}
    try:
        connection: Connection = await (connect or asyncpg.connect)(plain, server_settings=dict(begins), **options)
    except asyncpg.ProtocolViolationError as error:
        if "startup parameter" not in str(error):
            raise
        message = f"a pool stands before it: say pooling=session or pooling=transaction in the address, as it lends ({error})"
        raise ValueError(message) from error
    later = {name: value for name, value in settings.items() if name not in begins}
    if pooling == "session" and later:
        try:
            await connection.fetch(
                "SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS each (name, value)",
                [*later],
                [*later.values()],
            )
        except BaseException:
            connection.terminate()
            raise
    return connection


def unconnected(error: BaseException) -> UnavailableError:
    """What is told when there is no first connection."""
    reason = str(error) or type(error).__name__
    return UnavailableError("database-unavailable", f"cannot connect with the given database URL: {reason}")
