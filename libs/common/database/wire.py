"""What begins and ends a transaction goes to the server in one write with its statements.

asyncpg sends a statement as frames that end with a Sync, and reads whatever the server answers until the next one. So BEGIN
and the names of the tenants go as frames before the first statement's, and COMMIT before the Sync of the last: a transaction
costs as many round trips as it has statements. A statement that fails takes those behind it along, COMMIT too: the server
reads none of them until the Sync.

asyncpg offers no such thing. All that leans on how it works is in this module, and needs nothing but the transport that it
writes to: every new connection proves that it does what is said here, and one that cannot is used plainly.
"""

import asyncio
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import structlog

from libs.common import tenancy
from libs.common.silence import Loop

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Frames: TypeAlias = "bytes | memoryview[int]"

log = structlog.get_logger(__name__)

BIND, PARSE, QUERY = b"BPQ"
SYNC: Final = b"S\0\0\0\x04"
BEGIN, TENANTS, COMMIT = b"cartwright_begin", b"cartwright_tenants", b"cartwright_commit"
"""Prepared under names of their own: the statement without a name is asyncpg's, and may be waiting there for its Bind."""


def _frame(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _parse(name: bytes, sql: str) -> bytes:
    return _frame(b"P", name + b"\0" + sql.encode() + b"\0" + struct.pack("!h", 0))


def _run(name: bytes, *arguments: bytes) -> bytes:
    """Bind and Execute, with texts for arguments and no rows wanted in return."""
    values = b"".join(struct.pack("!i", len(each)) + each for each in arguments)
    counts = struct.pack("!hh", 0, len(arguments))
    return _frame(b"B", b"\0" + name + b"\0" + counts + values + struct.pack("!h", 0)) + _frame(
        b"E", b"\0" + struct.pack("!i", 0)
    )


PREPARE: Final = (
    _parse(BEGIN, "BEGIN")
    # Of a function's answer there would be a row among those of the statement behind it: hence where it stands.
    + _parse(TENANTS, f"SELECT 1 WHERE set_config('{tenancy.SETTING}', $1, true) IS NULL")
    + _parse(COMMIT, "COMMIT")
)
RUN_BEGIN: Final = _run(BEGIN)
RUN_COMMIT: Final = _run(COMMIT) + SYNC


class Ride:
    """One transaction, as its frames pass by."""

    __slots__ = ("_ahead", "_tenant_ids", "has_begun", "has_ended", "is_over", "is_touched", "with_next")

    def __init__(self, tenant_ids: Sequence[UUID], ahead: bytes = b"") -> None:
        self._tenant_ids = tenant_ids
        self._ahead = ahead
        self.is_touched = self.has_begun = False
        self.with_next = False
        """Whether COMMIT goes with the next statement."""
        self.has_ended = False
        """Whether COMMIT went with one."""
        self.is_over = False
        """Whether the last statement has been answered, with COMMIT or without."""

    def joined(self, frames: Frames) -> Frames:
        """The frames with what goes before and behind them."""
        kind, is_last = frames[0], self.with_next
        self.is_touched, self.with_next = True, False
        if (self.has_ended or self.is_over) and kind in (BIND, PARSE, QUERY):
            message = "the transaction has ended with the statement before this one"
            raise asyncpg.InterfaceError(message)
        if kind == BIND:
            return self._bound(frames, is_last=is_last)
        if kind == QUERY and not self.has_begun:
            self.has_begun = True
            return _frame(b"Q", tenancy.begin(self._tenant_ids).encode() + b"; " + frames[5:])
        return frames

    def _bound(self, frames: Frames, *, is_last: bool) -> Frames:
        before = b""
        if not self.has_begun:
            self.has_begun = True
            before = self._ahead + RUN_BEGIN + _run(TENANTS, tenancy.named(self._tenant_ids).encode())
        if is_last and frames[-len(SYNC) :] == SYNC:
            self.has_ended = True
            return b"".join((before, frames[: -len(SYNC)], RUN_COMMIT))
        return before + frames if before else frames


class Wire:
    """A transport that a transaction's frames may ride on; else as the one within it."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.is_proven = False
        self.ride: Ride | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, frames: Frames) -> None:
        """Send what asyncpg sends, and what rides along."""
        self.transport.write(frames if self.ride is None else self.ride.joined(frames))

    def writelines(self, buffers: Sequence[Frames]) -> None:
        """The same, of what goes in several pieces."""
        if self.ride is not None:
            self.ride.with_next = False
            buffers = [self.ride.joined(buffers[0]), *buffers[1:]]
        self.transport.writelines(buffers)


class _Loop(Loop):
    """The same, but what is connected by it is a wire."""

    async def create_connection(self, factory: Callable[[], Any], *where: Any, **options: Any) -> tuple[Wire, Any]:
        return _wired(await self._loop.create_connection(asyncio.Protocol, *where, **options), factory)

    async def create_unix_connection(self, factory: Callable[[], Any], *where: Any, **options: Any) -> tuple[Wire, Any]:
        return _wired(await self._loop.create_unix_connection(asyncio.Protocol, *where, **options), factory)

    async def start_tls(self, wire: Wire, *what: Any, **options: Any) -> Wire | None:
        transport = await self._loop.start_tls(wire.transport, *what, **options)
        return None if transport is None else Wire(transport)


def _wired(connected: tuple[Any, asyncio.Protocol], factory: Callable[[], Any]) -> tuple[Wire, Any]:
    """The server says nothing before it is spoken to, so there was nothing to hear until now but that it is gone."""
    transport, _ = connected
    if transport.is_closing():
        raise ConnectionResetError
    wire, protocol = Wire(transport), factory()
    transport.set_protocol(protocol)
    protocol.connection_made(wire)
    return wire, protocol


BROKEN: Final = (
    *(asyncpg.InterfaceError, asyncpg.InternalClientError),
    *(asyncpg.SyntaxOrAccessError, asyncpg.InvalidSQLStatementNameError),  # of a pool in between that shares what is prepared
)


async def connect(url: str, *, loop: Loop, **options: Any) -> Connection:
    """A connection on which transactions ride if it can prove that they do, else a plain one."""
    connection: Connection = await asyncpg.connect(url, loop=_Loop(loop), **options)
    try:
        await _prove(connection)
    except UnprovenError as error:
        connection.terminate()
        log.warning(
            "database.plain", error=str(error), action="transactions take two round trips more; compare asyncpg's version"
        )
        return await asyncpg.connect(url, loop=loop, **options)
    except BaseException:
        connection.terminate()
        raise
    return connection


class UnprovenError(Exception):
    """A connection does not do with a ride what it should."""


async def _prove(connection: Connection) -> None:
    """Carry out one transaction that rides, and look at what became of it.

    Raises UnprovenError if that is not what should have.
    """
    wire = connection._transport  # noqa: SLF001 - here is what we connected with
    if not isinstance(wire, Wire):
        message = "it does not write through what it was connected with"
        raise UnprovenError(message)
    sample, ask = uuid4(), f"SELECT current_setting('{tenancy.SETTING}', true)"
    found: list[Any] = []
    try:
        wire.ride = ride = Ride([sample], PREPARE)
        for ride.with_next in (False, True):
            found += [await connection.fetchval(ask), connection.is_in_transaction()]
        found.append(ride.has_ended)
        wire.ride = None
        found.append(await connection.fetchval(ask))
    except (*BROKEN, AttributeError) as error:
        raise UnprovenError(str(error)) from error
    if found != [str(sample), True, str(sample), False, True, ""]:
        message = f"a transaction that rode came out as {found}"
        raise UnprovenError(message)
    wire.is_proven = True


def wire_of(connection: Connection) -> Wire | None:
    """The connection's wire, if transactions ride on it."""
    wire = getattr(connection, "_transport", None)
    return wire if isinstance(wire, Wire) and wire.is_proven else None


async def begin(connection: Connection, tenant_ids: Iterable[UUID]) -> None:
    """Let a transaction for these tenants begin with the next statement. Raises InterfaceError within one."""
    wire = wire_of(connection)
    if wire is None:
        await connection.execute(tenancy.begin(tenant_ids))
        return
    if connection.is_in_transaction():
        message = "a transaction was left open on this connection"
        raise asyncpg.InterfaceError(message)
    wire.ride = Ride([*tenant_ids])


async def commit(connection: Connection) -> None:
    """Commit what has not been committed with the last statement. Raises InterfaceError if there is no transaction any more."""
    wire = wire_of(connection)
    if wire is None or wire.ride is None:
        await connection.execute("COMMIT")
        return
    ride, wire.ride = wire.ride, None
    if ride.has_begun and not connection.is_closed() and connection.is_in_transaction() is ride.has_ended:
        message = "the transaction is not as its statements should have left it"
        raise asyncpg.InterfaceError(message)
    if ride.is_touched and not ride.has_ended:
        await connection.execute("COMMIT")


def is_untouched(connection: Connection) -> bool:
    """Forget the transaction that was to begin; whether the server never heard of it."""
    wire = wire_of(connection)
    ride = wire.ride if wire else None
    if wire is None or ride is None:
        return False
    wire.ride = None
    return not ride.is_touched


async def fetch(connection: Connection, sql: str, *arguments: Any, ends: bool = False) -> list[asyncpg.Record]:
    """Run a statement; every row.

    If the transaction `ends` with it, it is committed with it too, or (a statement that is new here) when it is left. Nothing
    may follow.
    """
    wire = wire_of(connection) if ends else None
    ride = wire.ride if wire else None
    if ride is not None:
        ride.with_next = True
    try:
        records: list[asyncpg.Record] = await connection.fetch(sql, *arguments)
    finally:
        if ride is not None:
            ride.with_next = False
    if ride is not None:
        ride.is_over = True
    return records
