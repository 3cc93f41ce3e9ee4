"""Connections: a pool of them under one role, and transactions for named tenants on them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg

from libs.common.database import wire
from libs.common.database.opening import UNCONNECTED, opened, unconnected
from libs.common.database.wire import Connection
from libs.common.errors import OverloadedError, UnavailableError
from libs.common.telemetry import Counter

PLANNING = {"plan_cache_mode": "force_generic_plan"} | dict.fromkeys(
    ("jit", "enable_seqscan", "enable_hashjoin", "enable_mergejoin"), "off"
)
"""Every hot statement is prepared once and takes arrays: planning it anew for each set of values took as long as running it.

A plan that is made once is made early, and to an empty table nothing is cheaper than reading all of it, which it goes on
doing when the table has grown. So plans do not depend on sizes: rows are found by their keys, one index look-up each.
"""


PREPARED: dict[str, Any] = {"statement_cache_size": 500, "max_cached_statement_lifetime": 0, "max_cacheable_statement_size": 0}
"""What is prepared stays prepared, however long it is: the statements are our own, and so are their combinations."""


MOST_WAITING = 1_000
"""So many may stand in line for a connection."""

SHED = Counter("cartwright_shed_total", "Requests refused at once because too many waited already", ["queue"])


class Pool:
    """Connections that are lent to one borrower at a time, the one that came back last first.

    asyncpg's own pool makes a task of every return and sets a timer for every loan, which is a tenth of our side of a small
    transaction. Settings end with their transaction here, so a connection comes back clean without asking the server.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], size: int, most_waiting: int = MOST_WAITING) -> None:
        """`most_waiting`: so many may stand in line. Whoever comes after is refused at once, not when it is too late."""
        self._connect = connect
        self._size = size
        self._most_waiting, self._waiting = most_waiting, 0
        self._free: asyncio.LifoQueue[Connection | None] = asyncio.LifoQueue()
        self._lent: set[Connection] = set()
        for _ in range(size):
            self._free.put_nowait(None)

    async def take(self) -> Connection:
        """A connection for the caller alone. Raises TimeoutError when nobody gives one back within five seconds.

        Raises OverloadedError when too many wait for one already.
        """
        if self._free.empty():
            connection = await self._given_back()
        else:
            connection = self._free.get_nowait()
        if connection is None or connection.is_closed():
            connection = await self._opened()
        self._lent.add(connection)
        return connection

    async def _given_back(self) -> "Connection | None":
        if self._waiting >= self._most_waiting:
            SHED.labels("database").inc()
            raise OverloadedError
        self._waiting += 1
        try:
            async with asyncio.timeout(5):
                return await self._free.get()
        finally:
            self._waiting -= 1

    async def _opened(self) -> Connection:
        try:
            async with asyncio.timeout(5):
                return await self._connect()
        except BaseException:
            self._free.put_nowait(None)
            raise

    def give_back(self, connection: Connection) -> None:
        """Let others have it, unless it is in a transaction: nobody shall go on in that of another."""
        if not connection.is_closed() and connection.is_in_transaction():
            connection.terminate()
        self._lent.discard(connection)
        self._free.put_nowait(connection)

    async def close(self) -> None:
        """Close every connection; those still busy after five seconds are cut."""
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                for _ in range(self._size):
                    connection = await self._free.get()
                    if connection is not None:
                        await connection.close()
        for connection in self._lent:
            connection.terminate()


class Database:
    """A service's database under one role."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        application: str,
        size: int = 10,
        least: int = 1,
        most_waiting: int = MOST_WAITING,
        rides: bool = True,
    ) -> "Database":
        """Open a pool whose connections bound how long they can hold anything. With none at `least`, nobody is asked yet.

        Unless it `rides`, what begins and ends a transaction goes to the server by itself.
        """
        limits = {"lock_timeout": "5s", "statement_timeout": "20s", "idle_in_transaction_session_timeout": "20s"}
        connect = partial(
            opened,
            url,
            connect=wire.connect if rides else None,
            command_timeout=30,
            settings={"application_name": application, **PLANNING, **limits},
            **PREPARED,
        )
        pool = Pool(connect, size, most_waiting)
        try:
            for connection in [await pool.take() for _ in range(least)]:
                pool.give_back(connection)
        except UNCONNECTED as error:
            raise unconnected(error) from error
        return cls(pool)

    async def close(self) -> None:
        """Close every connection; those still busy after five seconds are cut."""
        await self.pool.close()

    @asynccontextmanager
    async def transaction(self, tenant_ids: Iterable[UUID]) -> AsyncIterator[Connection]:
        """A READ COMMITTED transaction that sees these tenants' rows and no others. It begins with its first statement."""
        connection = await self._taken()
        try:
            await wire.begin(connection, tenant_ids)
            yield connection
            await wire.commit(connection)
        except BaseException:
            await _roll_back(connection)
            raise
        finally:
            self.pool.give_back(connection)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A bare connection, outside any transaction."""
        connection = await self._taken()
        try:
            yield connection
        finally:
            self.pool.give_back(connection)

    async def _taken(self) -> Connection:
        try:
            return await self.pool.take()
        except UNCONNECTED as error:
            raise UnavailableError("database-unavailable", "the database does not answer; try again shortly") from error


async def _roll_back(connection: Connection) -> None:
    """Leave nothing open, also when the cause was a cancellation; a connection that cannot is thrown away."""
    if wire.is_untouched(connection):
        return
    try:
        await asyncio.shield(connection.execute("ROLLBACK"))
    except (asyncio.CancelledError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        connection.terminate()
