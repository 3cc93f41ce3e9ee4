"""The local stack's PostgreSQL server, for what needs nothing else of the stack: while it runs, or for a while by itself."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from deploy.local.environment import variable
from deploy.local.ports import choose_ports
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.replicated import STANDBY, ReplicatedPostgres
from deploy.local.state import Home, default_home


@asynccontextmanager
async def database_server(say: Callable[[str], None]) -> AsyncIterator[str]:
    """Yield where its administrator connects: the user's own server, the running one, or one that is started for this."""
    home = Home(default_home())
    home.prepare()
    remembered = home.read().get("ports", {})
    if given := variable("POSTGRES_ADMIN_URL"):
        yield given
    elif home.holder():
        of_cluster = (home.path / STANDBY).exists()
        yield (ReplicatedPostgres(home, remembered) if of_cluster else EmbeddedPostgres(home, remembered["postgres"])).admin_url
    else:
        with home.hold():
            server = EmbeddedPostgres(home, choose_ports(["postgres"], remembered, say)["postgres"])
            await server.start()
            try:
                yield server.admin_url
            finally:
                await server.stop()
