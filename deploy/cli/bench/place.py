"""Where it is measured: a database with the kernel's tables, a topic, and what the servers say of their durability."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, cast

import asyncpg
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from deploy.cli.bench.subject import HANDLERS, PARTITIONS, SERVICE, TALLIES, TOPIC
from deploy.local.databases import Role, database_url, provision
from deploy.local.environment import variable
from deploy.local.kafka.client import client_options
from deploy.local.topics import Topic, create_topics
from libs.common.database import Connection, Database
from libs.common.messaging.broker import Broker
from libs.common.messaging.envelope import Row
from libs.common.messaging.hints import Hints
from libs.common.messaging.schema import kernel_v1, kernel_v2, kernel_v4, kernel_v5, kernel_v6
from libs.common.messaging.shell import Shell
from libs.common.tenancy import protect

if TYPE_CHECKING:
    from libs.common.settings import Settings

_OUTBOX_COLUMNS: Final = ("event_id", "tenant_id", "topic", "key", "headers", "payload")


@dataclass(frozen=True, slots=True)
class Cluster:
    """The settings that a `Broker` reads, for the cluster of one measurement."""

    kafka_bootstrap_servers: str
    topic_prefix: str = ""
    kafka_security_protocol: str = "PLAINTEXT"


@dataclass(frozen=True, slots=True)
class Place:
    """The servers of one measurement."""

    admin_url: str
    bootstrap_servers: str
    prefix: str = ""
    """Tells databases on one server apart; the topic is the same for all."""

    @classmethod
    def from_environment(cls) -> Self:
        """The servers that `run` started for this process."""
        return cls(variable("POSTGRES_ADMIN_URL") or "", variable("KAFKA_BOOTSTRAP_SERVERS") or "")

    def url(self, role: Role) -> str:
        """Where one of the service's roles connects."""
        return database_url(self.admin_url, SERVICE, role, self.prefix)

    def broker(self) -> Broker:
        """The cluster as the kernel sees it."""
        return Broker(cast("Settings", Cluster(self.bootstrap_servers)))

    async def prepare(self) -> None:
        """Make the database, its tables and the topic."""
        await provision(self.admin_url, SERVICE, self.prefix)
        dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
        tally = str(CreateTable(TALLIES.table).compile(dialect=dialect))
        owner = await asyncpg.connect(self.url("owner"))
        later = (*kernel_v4(SERVICE), *kernel_v5(SERVICE), *kernel_v6())
        kernel = (*kernel_v1(SERVICE), *kernel_v2(SERVICE), *later)
        for statement in (*kernel, tally, *protect("tally", f"{SERVICE}_app")):
            await owner.execute(statement)
        await owner.close()
        await create_topics(
            self.bootstrap_servers, [Topic(TOPIC, SERVICE, PARTITIONS, replication=1, settings={})], **client_options()
        )

    @asynccontextmanager
    async def superuser(self) -> AsyncIterator[Connection]:
        """A connection for filling and emptying tables, which row-level security does not hold."""
        connection = await asyncpg.connect(self.admin_url, database=self.prefix + SERVICE)
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def hints(self) -> AsyncIterator[Hints]:
        """Wake-up calls, as every process of a service has them."""
        hints = Hints(self.url("app"))
        await hints.start()
        try:
            yield hints
        finally:
            await hints.close()

    @asynccontextmanager
    async def shell(self) -> AsyncIterator[Shell]:
        """The service's handlers on its database."""
        async with self.hints() as hints:
            database = await Database.connect(self.url("app"), application=SERVICE, size=8)
            try:
                yield Shell(database, (TALLIES,), HANDLERS, service=SERVICE, hints=hints)
            finally:
                await database.close()


async def copy_into_outbox(connection: Connection, rows: Sequence[Row]) -> None:
    """Put events into the outbox, the quick way."""
    await connection.copy_records_to_table("outbox_event", records=_records(rows), columns=_OUTBOX_COLUMNS)


def _records(rows: Sequence[Row]) -> Iterator[tuple[Any, ...]]:
    return ((row.event_id, row.tenant_id, row.topic, row.key, row.headers, row.payload) for row in rows)


async def durability(place: Place) -> dict[str, str]:
    """What the server answers to a session of the app, and what a live producer of the relay's kind sends."""
    connection = await asyncpg.connect(place.url("app"))
    settings = {name: await connection.fetchval(f"SHOW {name}") for name in ("fsync", "synchronous_commit", "full_page_writes")}
    settings["postgres"] = await connection.fetchval("SHOW server_version")
    await connection.close()
    producer = await place.broker().producer()
    acks = producer._sender._acks  # noqa: SLF001 - nowhere else does the client say what it asks for
    await producer.stop()
    return {**settings, "acks": "all" if acks == -1 else str(acks)}
