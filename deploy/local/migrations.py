"""Migrates the local stack's databases without the stack, or while it runs."""

from collections.abc import Callable, Sequence

from deploy.local.databases import database_url, provision
from deploy.local.environment import variable
from deploy.local.ports import choose_ports
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.processes import in_parallel
from deploy.local.services import migrate_in_child
from deploy.local.state import Home, default_home


async def migrate_local_databases(services: Sequence[str], *, say: Callable[[str], None]) -> None:
    """Make and migrate databases of the local stack, starting its PostgreSQL server for as long as it takes."""
    home = Home(default_home())
    home.prepare()
    remembered = home.read().get("ports", {})
    if given := variable("POSTGRES_ADMIN_URL"):
        return await _migrate_all(home, services, given, say)
    if home.holder():
        running = EmbeddedPostgres(home, remembered["postgres"])
        return await _migrate_all(home, services, running.admin_url, say)
    with home.hold():
        server = EmbeddedPostgres(home, choose_ports(["postgres"], remembered, say)["postgres"])
        await server.start()
        try:
            await _migrate_all(home, services, server.admin_url, say)
        finally:
            await server.stop()


async def _migrate_all(home: Home, services: Sequence[str], admin_url: str, say: Callable[[str], None]) -> None:
    await in_parallel(*(_migrate(home, service, admin_url, say) for service in services))


async def _migrate(home: Home, service: str, admin_url: str, say: Callable[[str], None]) -> None:
    await provision(admin_url, service)
    secret = home.secret_file("platform-client")
    home.secret("platform-client")
    await migrate_in_child(home, service, database_url(admin_url, service, "owner"), secret)
    say(f"{service} is migrated")
