"""The local stack's PostgreSQL server, for what needs nothing else of the stack: while it runs, or for a while by itself."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from deploy.local.databases import Role, cell_prefix, database_url
from deploy.local.description import StackDescription
from deploy.local.environment import variable
from deploy.local.errors import StackError
from deploy.local.ports import choose_ports
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.replicated import STANDBY, ReplicatedPostgres
from deploy.local.state import Home, default_home
from libs.common.cells import MAIN


@asynccontextmanager
async def database_server(say: Callable[[str], None]) -> AsyncIterator[str]:
    """Yield where its administrator connects: the user's own server, the running one, or one that is started for this."""
    home = Home(default_home())
    home.prepare()
    remembered = home.read().get("ports", {})
    if given := variable("POSTGRES_ADMIN_URL"):
        yield given
    elif running := running_server(home):
        yield running
    else:
        with home.hold():
            server = EmbeddedPostgres(home, choose_ports(["postgres"], remembered, say)["postgres"])
            await server.start()
            try:
                yield server.admin_url
            finally:
                await server.stop()


def running_server(home: Home) -> str | None:
    """Where the administrator of the running stack's own server connects; None while no stack runs, or none has its port yet."""
    ports = home.read().get("ports", {})
    if home.holder() is None or "postgres" not in ports:
        return None
    of_cluster = (home.path / STANDBY).exists()
    return (ReplicatedPostgres(home, ports) if of_cluster else EmbeddedPostgres(home, ports["postgres"])).admin_url


def database_of(stack: StackDescription, service: str, cell: str, role: Role) -> str:
    """Where one role of a service connects in a cell of a running stack, password included: for no eyes but a program's."""
    admin_url = variable("POSTGRES_ADMIN_URL") or running_server(Home(stack.home))
    if admin_url is None:
        raise StackError("the stack's PostgreSQL server does not run: start it with ./cartwright up")
    if cell != MAIN and cell not in stack.cells:
        raise StackError(f"the stack has no cell {cell!r}: ./cartwright down, then ./cartwright up --cell {cell}")
    return database_url(admin_url, service, role, cell_prefix(cell, stack.database_prefix))
