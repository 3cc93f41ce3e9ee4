"""A database's address as it is given.

An address is what libpq takes: several servers, `target_session_attrs`, `sslmode` and its files. One parameter is ours,
`pooling`: `session` or `transaction`, as the pool between us and the server (pgbouncer, for example) lends connections.
Such a pool refuses settings that a connection begins with. For a session it lets us make them afterwards; for a transaction
nothing may be left behind on a connection, so none are made, nothing is prepared, and what needs a session goes elsewhere.
"""

from pathlib import Path
from typing import Final, Literal, get_args
from urllib.parse import parse_qsl, urlencode, urlsplit

Pooling = Literal["none", "session", "transaction"]

FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl")


class AddressError(ValueError):
    """It cannot be used as it is."""


def address(url: str) -> tuple[str, Pooling]:
    """The address as asyncpg takes it, and how it is pooled. Raises AddressError with a line that says what is wrong with it."""
    parts = urlsplit(url)
    asked = parse_qsl(parts.query, keep_blank_values=True)
    for name, value in asked:
        if name in FILES:
            try:
                Path(value).read_bytes()
            except OSError as error:
                raise AddressError(f"its {name} names {value}, which cannot be read: {error.strerror}") from error
    if "pooling" not in dict(asked):
        return url, "none"
    pooling: Pooling = dict(asked)["pooling"]  # type: ignore[assignment]  # that is seen next
    if pooling not in get_args(Pooling):
        raise AddressError(f"its pooling is {pooling!r}, which is none of {', '.join(get_args(Pooling))}")
    return parts._replace(query=urlencode([each for each in asked if each[0] != "pooling"])).geturl(), pooling
