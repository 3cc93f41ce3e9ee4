"""Migrates the local stack's databases without the stack, or while it runs."""

from collections.abc import Callable, Sequence

from deploy.local.database_server import database_server
from deploy.local.databases import database_url, provision
from deploy.local.processes import in_parallel
from deploy.local.services import migrate_in_child
from deploy.local.state import Home, default_home


async def migrate_local_databases(services: Sequence[str], *, say: Callable[[str], None]) -> None:
    """Make and migrate databases of the local stack, starting its PostgreSQL server for as long as it takes."""
    async with database_server(say) as admin_url:
        await _migrate_all(Home(default_home()), services, admin_url, say)


async def _migrate_all(home: Home, services: Sequence[str], admin_url: str, say: Callable[[str], None]) -> None:
    await in_parallel(*(_migrate(home, service, admin_url, say) for service in services))


async def _migrate(home: Home, service: str, admin_url: str, say: Callable[[str], None]) -> None:
    await provision(admin_url, service)
    secret = home.secret_file("platform-client")
    home.secret("platform-client")
    await migrate_in_child(home, service, database_url(admin_url, service, "owner"), secret)
    say(f"{service} is migrated")
