"""Two PostgreSQL servers: one that is written to, and a standby that has each commit on its disk before it is answered.

A commit waits while there is no standby: what was acknowledged is on two disks, or it was not acknowledged.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from deploy.local.errors import StackError
from deploy.local.ports import HOST
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.processes import Child
from deploy.local.state import Home

if TYPE_CHECKING:
    import asyncpg

STANDBY: Final = "postgres-2"
SERVERS: Final = ("postgres", STANDBY)
PRIMARY: Final = "postgres.primary"
"""The file that says which of them is."""
# By name: who else takes the log, such as a backup, is no standby, and no commit waits for it.
_FOLLOWS: Final = """SELECT EXISTS (SELECT FROM pg_stat_replication
    WHERE state = 'streaming' AND application_name IN ('postgres', 'postgres-2'))"""
_WAITS: Final = """ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 ("postgres", "postgres-2")'"""
_PATIENCE_SECONDS: Final = 30
_POLL_SECONDS: Final = 0.05


class ReplicatedPostgres:
    """A primary and its synchronous standby, on the loopback."""

    def __init__(
        self,
        home: Home,
        ports: dict[str, int],
        *,
        say: Callable[[str], None] = lambda _: None,
        on_exit: Callable[[Child], None] | None = None,
    ) -> None:
        """Describe both; a file says which of them is the primary."""
        self._say, self._file = say, home.path / PRIMARY
        self._servers = {name: EmbeddedPostgres(home, ports[name], name=name, on_exit=on_exit) for name in SERVERS}

    @property
    def admin_url(self) -> str:
        """Where the superuser connects: to whichever can be written to."""
        first = urlsplit(self._servers[SERVERS[0]].admin_url)
        login, hosts = first.netloc.rpartition("@")[0], ",".join(f"{HOST}:{each.port}" for each in self._servers.values())
        return f"{first.scheme}://{login}@{hosts}{first.path}?target_session_attrs=read-write"

    @property
    def pid(self) -> int | None:
        """The primary's process id while it runs."""
        return self._primary.pid

    @property
    def running(self) -> bool:
        """Whether both run."""
        return all(server.running for server in self._servers.values())

    async def start(self) -> None:
        """Have a primary, and a standby that follows it."""
        if not self._primary.running:
            await self._primary.start()
        if self._primary.is_standby:  # whoever had it take over died before it did
            await self._promote()
        await self._have_standby()

    async def stop(self) -> None:
        """Stop the primary, then who follows it."""
        for server in (self._primary, self._standby):
            await server.stop()

    async def kill(self) -> None:
        """End the primary as a crash would."""
        await self._primary.kill()

    async def take_over(self) -> None:
        """Have the standby be the primary from now on. The one before must be dead; `start` has it follow."""
        heir = self._standby
        if not heir.is_standby:
            raise StackError("there is no standby that could take over: ./cartwright up --detach gives the primary one")
        self._file.write_text(heir.data.name)
        await self._promote()

    @property
    def _primary(self) -> EmbeddedPostgres:
        return self._servers[self._file.read_text() if self._file.exists() else SERVERS[0]]

    @property
    def _standby(self) -> EmbeddedPostgres:
        return next(server for server in self._servers.values() if server is not self._primary)

    async def _promote(self) -> None:
        async with _session(self._primary) as session:
            await session.execute("ALTER SYSTEM RESET synchronous_standby_names")
            await session.execute("SELECT pg_reload_conf(), pg_promote()")
        self._say(f"postgres is {HOST}:{self._primary.port} from now on")

    async def _have_standby(self) -> None:
        standby = self._standby
        if not standby.is_standby:
            await standby.clone(self._primary)
        if not standby.running:
            await standby.start()
        async with _session(self._primary) as session:
            if not await _comes(session, _FOLLOWS):  # it was left behind, or followed somebody else
                await standby.stop()
                await standby.clone(self._primary)
                await standby.start()
                if not await _comes(session, _FOLLOWS):
                    raise StackError(
                        f"the standby on {HOST}:{standby.port} does not follow: see ./cartwright logs {standby.data.name}"
                    )
            await session.execute(_WAITS)
            await session.execute("SELECT pg_reload_conf()")
        self._say(f"postgres has a standby on {HOST}:{standby.port}")


@asynccontextmanager
async def _session(server: EmbeddedPostgres) -> "AsyncIterator[asyncpg.Connection[Any]]":
    import asyncpg

    session = await asyncpg.connect(server.admin_url, timeout=10)
    try:
        yield session
    finally:
        await session.close()


async def _comes(session: "asyncpg.Connection[Any]", query: str) -> bool:
    """Whether it becomes true within patience."""
    for _ in range(int(_PATIENCE_SECONDS / _POLL_SECONDS)):
        if await session.fetchval(query):
            return True
        await asyncio.sleep(_POLL_SECONDS)
    return False
