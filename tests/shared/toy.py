"""A service as small as one can be, to try the messaging kernel with: counters that are bumped, and tallies of the bumps."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import asyncpg
from sqlalchemy import BigInteger, Column, MetaData, PrimaryKeyConstraint, Table, Uuid

from deploy.local.databases import database_url, provision
from deploy.local.topics import Topic, create_topics
from libs.common.clock import new_id, now
from libs.common.contracts import ANYBODY, Event, event
from libs.common.database import Database, Rows
from libs.common.decision import Aggregate, Handlers, Message, Ref, World
from libs.common.messaging.broker import Broker
from libs.common.messaging.hints import Hints
from libs.common.messaging.inbox import Inbox, kafka_broker
from libs.common.messaging.relay import Relay
from libs.common.messaging.schema import (
    SLOT_SECONDS,
    kernel_v1,
    kernel_v2,
    kernel_v4,
    kernel_v5,
    kernel_v6,
    kernel_v7,
    kernel_v8,
    kernel_v9,
    kernel_v10,
    kernel_v11,
    kernel_v12,
)
from libs.common.messaging.shell import Shell
from libs.common.settings import Settings
from libs.common.tenancy import protect

SERVICE = "toy"
TOPIC = "toy.v1"
GROUP = "tallies"
PARTITIONS = 6


@event(TOPIC, "toy.bumped", aggregate="counter_id", publisher=ANYBODY)
class Bumped(Event):
    """A counter went up."""

    counter_id: UUID
    value: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Counter(Aggregate):
    """What is bumped."""

    id: UUID
    value: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally(Aggregate):
    """What a consumer made of a counter's bumps."""

    id: UUID
    applied: int = 0
    last_sequence: int = 0
    violations: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Bump:
    """Bump it, and perhaps fail halfway."""

    counter_id: UUID


METADATA = MetaData()


def _table(name: str, *columns: str) -> Table:
    return Table(
        name,
        METADATA,
        Column("tenant_id", Uuid, nullable=False),
        Column("id", Uuid, nullable=False),
        *(Column(column, BigInteger, nullable=False) for column in ("version", "sequence", *columns)),
        PrimaryKeyConstraint("tenant_id", "id", name=f"{name}_pkey"),
    )


COUNTERS = Rows(_table("counter", "value"), Counter)
TALLIES = Rows(_table("tally", "applied", "last_sequence", "violations"), Tally)
HANDLERS = Handlers()
POISON = -1


@HANDLERS.on(Bump, lambda m: [Ref(Counter, m.data.counter_id)])
def bump(world: World, message: Message[Bump]) -> int:
    counter = world.get(Counter, message.data.counter_id) or Counter(tenant_id=world.tenant_id, id=message.data.counter_id)
    bumped = replace(counter, value=counter.value + 1)
    return world.save(bumped, Bumped(counter_id=bumped.id, value=bumped.value)).value


@HANDLERS.on(Bumped, lambda m: [Ref(Tally, m.data.counter_id)])
def tally(world: World, message: Message[Bumped]) -> None:
    if message.data.value == POISON:
        raise ValueError("poison")
    known = world.get(Tally, message.data.counter_id) or Tally(tenant_id=world.tenant_id, id=message.data.counter_id)
    in_order = message.sequence == known.last_sequence + 1
    world.save(
        replace(
            known,
            applied=known.applied + 1,
            last_sequence=max(known.last_sequence, message.sequence),
            violations=known.violations + (not in_order),
        )
    )


def command(tenant_id: UUID, counter_id: UUID) -> Message[Bump]:
    return Message(data=Bump(counter_id=counter_id), tenant_id=tenant_id, id=str(new_id()), time=now())


class Toy:
    """The toy service on real servers: a database and a topic of its own."""

    def __init__(self, admin_url: str, bootstrap_servers: str, prefix: str) -> None:
        self.admin_url, self.prefix = admin_url, prefix
        self.settings = cast(
            "Settings",
            SimpleNamespace(kafka_bootstrap_servers=bootstrap_servers, topic_prefix=prefix, kafka_security_protocol="PLAINTEXT"),
        )

    def url(self, role: Any) -> str:
        return database_url(self.admin_url, SERVICE, role, self.prefix)

    @property
    def listening_url(self) -> str:
        return self.url("app")

    async def as_admin(self) -> asyncpg.Connection:
        """Past every policy: what is parked shows itself to its tenants and the platform alone."""
        return await asyncpg.connect(f"{self.admin_url.rpartition('/')[0]}/{self.prefix}{SERVICE}")

    async def prepare(self, *, slot_seconds: int = SLOT_SECONDS) -> None:
        await provision(self.admin_url, SERVICE, self.prefix)
        owner = await asyncpg.connect(self.url("owner"))
        later = (
            *kernel_v4(SERVICE),
            *kernel_v5(SERVICE),
            *kernel_v6(),
            *kernel_v7(SERVICE),
            *kernel_v8(SERVICE),
            *kernel_v9(SERVICE),
            *kernel_v10(SERVICE),
            *kernel_v11(SERVICE),
            *kernel_v12(SERVICE),
        )
        kernel = (*kernel_v1(SERVICE), *kernel_v2(SERVICE, slot_seconds=slot_seconds), *later)
        for statement in kernel:
            await owner.execute(statement)
        for rows in (COUNTERS, TALLIES):
            columns = ", ".join(
                f"{column.name} {'uuid' if isinstance(column.type, Uuid) else 'bigint'} NOT NULL" for column in rows.table.columns
            )
            name = rows.table.name
            await owner.execute(f"CREATE TABLE {name} ({columns}, CONSTRAINT {name}_pkey PRIMARY KEY (tenant_id, id))")
            for statement in protect(name, f"{SERVICE}_app"):
                await owner.execute(statement)
        await owner.close()
        topic = Topic(TOPIC, "toy", partitions=PARTITIONS, replication=1, settings={})
        await create_topics(self.settings.kafka_bootstrap_servers, [topic], self.prefix)

    @asynccontextmanager
    async def shell(self) -> AsyncIterator[Shell]:
        database = await Database.connect(self.url("app"), application="toy", size=20)
        hints = Hints(self.listening_url)
        await hints.start()
        try:
            yield Shell(database, (COUNTERS, TALLIES), HANDLERS, service=SERVICE, hints=hints)
        finally:
            await hints.close()
            await database.close()

    @asynccontextmanager
    async def relay(self, name: str) -> AsyncIterator["asyncio.Task[None]"]:
        hints = Hints(self.listening_url)
        await hints.start()
        relay = Relay(self.url("relay"), database=SERVICE, broker=Broker(self.settings), hints=hints)
        relay._owner = name
        task = asyncio.create_task(relay.run())
        try:
            yield task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await hints.close()

    @asynccontextmanager
    async def member(self, shell: Shell) -> AsyncIterator[Inbox]:
        broker = Broker(self.settings)
        kafka = kafka_broker(broker)
        inbox = Inbox(shell, broker, group=GROUP, topics=[TOPIC])
        inbox.subscribe(kafka)
        await kafka.start()
        try:
            yield inbox
        finally:
            await kafka.stop()

    async def totals(self, tenants: list[UUID]) -> dict[str, int]:
        """What was committed, what was applied, and how often out of order."""
        database = await Database.connect(self.url("app"), application="totals", size=1)
        async with database.transaction(tenants) as connection:
            row = await connection.fetchrow(
                "SELECT (SELECT coalesce(sum(value), 0) FROM counter) AS committed, coalesce(sum(applied), 0) AS applied, "
                "coalesce(sum(violations), 0) AS violations FROM tally"
            )
        await database.close()
        return {name: int(value) for name, value in row.items()}


def seeded(seed: int) -> random.Random:
    print(f"seed {seed}")
    return random.Random(seed)
