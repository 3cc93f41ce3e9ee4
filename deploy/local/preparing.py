"""What a stack's servers are given before its services start: databases with their tables, topics, and rights."""

from collections.abc import Iterable, Sequence

from deploy.local.access import declared_access
from deploy.local.cells import CELLED
from deploy.local.databases import cell_prefix, database_url, is_newest, provision
from deploy.local.environment import BOOTSTRAPPED
from deploy.local.infrastructure import Infrastructure, Kind
from deploy.local.kafka.listeners import BrokerAccess
from deploy.local.kafka.wall import raise_wall
from deploy.local.processes import in_parallel
from deploy.local.services import migrate_in_child
from deploy.local.state import Home
from deploy.local.topics import Where, create_topics, declared_topics
from libs.common.cells import MAIN


async def prepare_databases(home: Home, admin_url: str, services: Sequence[str], cells: Iterable[str], prefix: str) -> None:
    """Have the databases of these services, with every migration, in the main cell and in these."""
    wanted = [(service, MAIN) for service in services]
    wanted += [(service, cell) for cell in cells for service in services if service in CELLED]
    await in_parallel(*(_prepare_database(home, admin_url, service, cell_prefix(cell, prefix)) for service, cell in wanted))


async def _prepare_database(home: Home, admin_url: str, service: str, prefix: str) -> None:
    await provision(admin_url, service, prefix)
    owner_url = database_url(admin_url, service, "owner", prefix)
    if service in BOOTSTRAPPED or not await is_newest(owner_url, service):
        await migrate_in_child(home, service, owner_url, home.secret_file("platform-client"))


async def prepare_broker(infrastructure: Infrastructure, kind: Kind, access: BrokerAccess, prefix: str) -> None:
    """Have the topics, and whoever works with them in possession of his rights."""
    admin, sasl = infrastructure.broker_admin(), infrastructure.sasl
    where: Where = "production" if kind == "cluster" else "local"
    await create_topics(topics=declared_topics(where=where), prefix=prefix, **admin)
    if sasl:
        users, anonymous = {name: each.secret() for name, each in sasl.principals.items()}, access == "publishers"
        await raise_wall(admin, declared_access(), users=users, prefix=prefix, anonymous=anonymous)
