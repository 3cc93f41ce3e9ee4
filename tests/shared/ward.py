"""The toy's consumer with an illness that can be cured."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from aiokafka import AIOKafkaProducer

from libs.common.database import Database
from libs.common.decision import Handlers, Message, Ref, World
from libs.common.errors import ConflictError, NotYetError, UnbelievableError
from libs.common.messaging.broker import Broker
from libs.common.messaging.envelope import Reader
from libs.common.messaging.hints import Hints
from libs.common.messaging.inbox import Inbox, kafka_broker
from libs.common.messaging.repairs import ParkedMessages
from libs.common.messaging.shell import Shell
from tests.shared.toy import COUNTERS, TALLIES, TOPIC, Bumped, Tally, Toy

TOO_LARGE_FOR_A_COLUMN = 2**70
SOMEBODY_WAITS = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND transactionid = pg_current_xact_id()::xid)"
"""For the transaction that asks."""


class Ward:
    """The toy's consumer with an illness that can be cured, and what operators see of it."""

    def __init__(self, toy: Toy, tenant_id: UUID) -> None:
        self.toy = toy
        self.tenant_id = tenant_id
        self.poisonous: set[int] = set()
        self.unbelievable: set[int] = set()
        self.overflowing: set[int] = set()
        self.too_early: set[int] = set()
        self.second: set[int] = set()
        """What cannot be the first of its key."""
        self.grace_seconds = 60.0
        self.source_budget = 1_000
        self.topics = [TOPIC]
        self.decided = 0
        """How many messages were decided, each as often as it was tried."""
        self.handlers = Handlers()
        self.handlers.on(Bumped, lambda m: [Ref(Tally, m.data.counter_id)])(self._note)
        self.inbox: Inbox
        self.parked: ParkedMessages

    def _note(self, world: World, message: Message[Bumped]) -> None:
        value, counter_id = message.data.value, message.data.counter_id
        self.decided += 1
        if value in self.poisonous:
            raise ValueError(f"{value} is poison")
        if value in self.too_early:
            raise NotYetError("unknown-tenant", "what it speaks of is not here yet")
        if value in self.unbelievable:
            raise UnbelievableError("lie", f"/value: {value} cannot be")
        known = world.get(Tally, counter_id) or Tally(tenant_id=world.tenant_id, id=counter_id)
        if value in self.second and not known.applied:
            raise ConflictError("nothing-before", f"{value} lacks what it changes")
        applied = TOO_LARGE_FOR_A_COLUMN if value in self.overflowing else known.applied + 1
        in_order = value > known.last_sequence
        world.save(replace(known, applied=applied, last_sequence=value, violations=known.violations + (not in_order)))

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Ward"]:
        database = await Database.connect(self.toy.url("app"), application="ward", size=5)
        hints = Hints(self.toy.url("app"))
        await hints.start()
        shell = Shell(database, (COUNTERS, TALLIES), self.handlers, service="toy", hints=hints)
        broker = Broker(self.toy.settings)
        kafka = kafka_broker(broker)
        limits: Any = {"grace_seconds": self.grace_seconds, "source_budget": self.source_budget}
        self.inbox = Inbox(shell, broker, group="tallies", topics=self.topics, **limits)
        self.inbox.subscribe(kafka)
        self.parked = ParkedMessages(shell, Reader(self.handlers.events(), topic_prefix=broker.prefix), self.inbox.group)
        await kafka.start()
        try:
            yield self
        finally:
            await kafka.stop()
            await hints.close()
            await database.close()

    async def send(self, *bumps: tuple[UUID, int], origin: str = "toy", topic: str = TOPIC, partition: int = 0) -> None:
        """Our own messages, in one partition, as a relay numbers them."""
        producer = AIOKafkaProducer(bootstrap_servers=self.toy.settings.kafka_bootstrap_servers)
        await producer.start()
        for counter_id, value in bumps:
            self.position = getattr(self, "position", 0) + 1
            headers = {
                "ce_id": str(uuid4()),
                "ce_source": "/cartwright/toy",
                "ce_type": "toy.bumped",
                "ce_tenantid": str(self.tenant_id),
                "ce_sequence": str(abs(value) + 1),
                "ce_time": "2026-01-01T00:00:00Z",
                "ce_relayposition": f"{origin}/1.1.{self.position}",
            }
            body = f'{{"counter_id":"{counter_id}","value":{value}}}'.encode()
            key = f"{self.tenant_id}:{counter_id}".encode()
            carried = [(name, text.encode()) for name, text in headers.items()]
            await producer.send_and_wait(self.toy.prefix + topic, body, key, partition=partition, headers=carried)
        await producer.stop()

    async def tallies(self) -> dict[UUID, tuple[int, int, int]]:
        owner = await asyncpg.connect(self.toy.url("app"))
        await owner.execute(f"BEGIN; SET LOCAL cartwright.tenant_ids = '{self.tenant_id}'")
        rows = await owner.fetch("SELECT id, applied, last_sequence, violations FROM tally")
        await owner.close()
        return {row["id"]: (row["applied"], row["last_sequence"], row["violations"]) for row in rows}

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(120):
            while not await condition():
                await asyncio.sleep(0.05)

    async def set_aside(self) -> list[tuple[str, str]]:
        return [(each["state"], each["reason"]) for each in await self.parked.search(limit=200)]
