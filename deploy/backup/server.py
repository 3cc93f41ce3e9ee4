"""The server that is backed up: who administers it, where its log stands, and PostgreSQL's own programs for it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from deploy.backup.errors import BackupError
from deploy.local.postgres import binaries
from deploy.local.processes import dying_with_parent

if TYPE_CHECKING:
    import asyncpg

SLOT: Final = "cartwright_backup"
"""By it the server keeps what of its log has not been fetched yet."""

_LOST: Final = "lost"
_INHERITED: Final = ("PATH", "HOME", "TMPDIR")

_POSITION: Final = """SELECT clock_timestamp() AS at, (SELECT system_identifier FROM pg_control_system())::text AS cluster,
    pg_current_wal_flush_lsn()::text AS flushed, pg_walfile_name(pg_current_wal_flush_lsn() - 1) AS segment,
    (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size') AS segment_bytes,
    (SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1) AS slot"""
_RECEIVED: Final = """SELECT r.state IS NULL AS is_hidden, r.write_lsn >= $2::text::pg_lsn AS is_here
    FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE s.slot_name = $1"""
_TIMELINE_DIGITS: Final = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Where a server's log stood at a moment of its own clock."""

    at: datetime
    cluster: str
    flushed: str
    """Up to here everything is on its disk."""
    segment: str
    """Where the last byte before that lies: of the next segment there may be none yet."""
    segment_bytes: int
    slot: str | None
    server_version: int

    @property
    def series(self) -> str:
        """This history of this cluster: a restore, or another server that takes over, begins another."""
        return f"{self.cluster}-{self.segment[:_TIMELINE_DIGITS]}"

    @property
    def is_kept(self) -> bool:
        """Whether the server keeps its log for us."""
        return self.slot not in {None, _LOST}


async def position(connection: "asyncpg.Connection") -> Position:
    """Look where the log stands."""
    row = await connection.fetchrow(_POSITION, SLOT)
    return Position(**row, server_version=connection.get_server_version().major)


async def keep_log(connection: "asyncpg.Connection", where: Position) -> None:
    """Have the server keep its log from now on until we have it."""
    if where.slot is not None:
        await connection.execute("SELECT pg_drop_replication_slot($1)", SLOT)
    await connection.execute("SELECT pg_create_physical_replication_slot($1, true)", SLOT)


async def is_received(connection: "asyncpg.Connection", lsn: str) -> bool:
    """Whether whoever fetches the log has written it up to there. Raises BackupError where nobody lets us see."""
    row = await connection.fetchrow(_RECEIVED, SLOT, lsn)
    if row and row["is_hidden"]:
        raise BackupError("the server does not say how far its log was fetched: the user needs pg_monitor beside REPLICATION")
    return bool(row and row["is_here"])


def client(name: str, url: str, *arguments: str) -> tuple[list[str], Mapping[str, str]]:
    """One of PostgreSQL's programs and its environment, which has the password: a command line is anybody's to read."""
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    bare = urlunsplit(parts._replace(netloc=f"{user}@{hosts}" if user else hosts))
    environment = {each: os.environ[each] for each in _INHERITED if each in os.environ} | {"LC_ALL": "C.UTF-8"}
    if password:
        environment["PGPASSWORD"] = unquote(password)
    command = [*dying_with_parent("INT"), str(binaries() / name), f"--dbname={bare}", "--no-password", *arguments]
    return command, environment
