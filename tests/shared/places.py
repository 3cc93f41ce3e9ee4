"""Real databases: each service migrated once, and copies of that, for many tests or for one alone."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from deploy.local.databases import Role, database_url, provision
from libs.common.database import SERVICES, migrate

MIGRATED = sorted(path.parent.name for path in SERVICES.glob("*/migrations") if any(path.glob("versions/*.py")))
"""Every service that has a database."""


@dataclass(frozen=True)
class Place:
    """A service's database, by the role that looks at it."""

    admin_url: str
    service: str
    prefix: str

    @property
    def name(self) -> str:
        return self.prefix + self.service

    def url(self, role: Role) -> str:
        return database_url(self.admin_url, self.service, role, self.prefix)

    async def as_admin(self) -> asyncpg.Connection:
        return await asyncpg.connect(self.admin_url.rpartition("/")[0] + "/" + self.name)


Places = Callable[[str], Place]

WITH_TENANTS = """SELECT c.relname AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1"""


class Templates:
    """Migrates each service once, into a database that nobody connects to, and copies that."""

    def __init__(self, admin_url: str, prefix: str) -> None:
        self.admin_url = admin_url
        self._prefix = prefix
        self._made: dict[str, Place] = {}
        # Alembic runs a loop of its own, and a test has one already.
        self._thread = ThreadPoolExecutor(1)
        os.register_at_fork(after_in_child=self._forked)  # no thread lives on in a fork, and nobody tells the pool

    def _forked(self) -> None:
        self._thread = ThreadPoolExecutor(1)

    def copy(self, service: str, prefix: str) -> Place:
        return self._thread.submit(self._copy, service, prefix).result()

    def _copy(self, service: str, prefix: str) -> Place:
        if service not in self._made:
            template = Place(self.admin_url, service, self._prefix)
            asyncio.run(provision(self.admin_url, service, self._prefix))
            migrate(service, template.url("owner"))
            self._made[service] = template
        copy = Place(self.admin_url, service, prefix)
        asyncio.run(_clone(self._made[service], copy))
        return copy

    def drop(self, places: list[Place]) -> None:
        self._thread.submit(asyncio.run, drop(self.admin_url, [place.name for place in places])).result()

    def close(self) -> None:
        self.drop(list(self._made.values()))
        self._thread.shutdown()


async def _clone(source: Place, copy: Place) -> None:
    admin = await asyncpg.connect(copy.admin_url)
    try:
        await admin.execute(f'CREATE DATABASE "{copy.name}" TEMPLATE "{source.name}" OWNER "{copy.service}_owner"')
    finally:
        await admin.close()
    # What may be done with a database as a whole is not part of its copy.
    await provision(copy.admin_url, copy.service, copy.prefix)


async def drop(admin_url: str, names: list[str]) -> None:
    admin = await asyncpg.connect(admin_url)
    try:
        for name in names:
            await admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    finally:
        await admin.close()


async def counted(place: Place, tenant_id: UUID) -> dict[str, int]:
    """How many rows a tenant has in a database, table by table."""
    admin = await place.as_admin()
    try:
        names = [row["name"] for row in await admin.fetch(WITH_TENANTS)]
        return {name: await admin.fetchval(f"SELECT count(*) FROM {name} WHERE tenant_id = $1", tenant_id) for name in names}
    finally:
        await admin.close()
