"""What no handler and no publisher should do, and some day one will: the inbox passes over nothing and stops for nothing."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from libs.common.contracts import ANYBODY, Event, event
from libs.common.database import ConcurrencyError
from libs.common.decision import Handlers, IdentityMap, Message, Ref, World
from libs.common.messaging.envelope import MAX_EVENT_BYTES, Invalid, KafkaRecord, Reader, Received
from libs.common.messaging.inbox.lanes import RETRIED
from libs.common.messaging.inbox.positions import MISSED
from libs.common.messaging.shell import Shell
from tests.shared.places import drop
from tests.shared.toy import COUNTERS, SERVICE, TALLIES, Bumped, Tally, Toy, command, seeded, tally
from tests.shared.toy import HANDLERS as TOY_HANDLERS

HUGE, HEALTHY = -2, 1


@event("toy.v1", "toy.noted", aggregate="counter_id", publisher=ANYBODY)
class Noted(Event):
    """Somebody had much to say."""

    counter_id: UUID
    text: str


HANDLERS = Handlers()


@HANDLERS.on(Bumped, lambda m: [Ref(Tally, m.data.counter_id)])
def note(world: World, message: Message[Bumped]) -> None:
    if message.data.value == HUGE:
        world.publish(Noted(counter_id=message.data.counter_id, text="x" * MAX_EVENT_BYTES), 1)
    tally(world, message)


class Stumbling(Shell):
    """A shell with a mistake in it that shows the first few times."""

    mistakes = 0

    async def store(self, connection: Any, aggregates: IdentityMap, *also: Any, ends: bool = False) -> None:  # noqa: ARG002 - it goes on
        await super().store(connection, aggregates, *also)
        if aggregates.changed and self.mistakes:
            self.mistakes -= 1
            message = "a mistake of ours"
            raise TypeError(message)


class Shaky(Shell):
    """A shell whose transactions fail now and then at their very end, as they do when somebody else was faster."""

    chance = random.Random()
    failed = under_way = most_under_way = 0

    async def decide(self, *arguments: Any, **options: Any) -> tuple[list[Any], IdentityMap]:
        self.under_way += 1
        self.most_under_way = max(self.under_way, self.most_under_way)
        return await super().decide(*arguments, **options)

    async def store(self, connection: Any, aggregates: IdentityMap, *also: Any, ends: bool = False) -> None:  # noqa: ARG002 - it goes on
        try:
            await super().store(connection, aggregates, *also)
            if self.chance.random() < 0.5:
                self.failed += 1
                raise ConcurrencyError("somebody was faster")
        finally:
            self.under_way -= 1


class StumblingReader(Reader):
    """A reader with a mistake in it that shows the first few times."""

    mistakes = 2

    def read(self, record: KafkaRecord) -> Received | Invalid | None:
        if self.mistakes:
            self.mistakes -= 1
            message = "a mistake of ours"
            raise TypeError(message)
        return super().read(record)


@pytest.fixture
async def toy(admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str]) -> AsyncIterator[Toy]:
    toy = Toy(admin_url, bootstrap_servers, fresh_prefix("inbox"))
    await toy.prepare()
    yield toy
    await drop(admin_url, [toy.prefix + SERVICE])


@pytest.fixture
async def send(toy: Toy) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """Publish a bump as a foreign system would."""
    producer = AIOKafkaProducer(bootstrap_servers=toy.settings.kafka_bootstrap_servers)
    await producer.start()

    async def send(tenant: UUID, counter: UUID, value: int, *more: tuple[str, bytes | None]) -> None:
        headers = {
            "ce_id": str(uuid4()).encode(),
            "ce_source": b"/x",
            "ce_type": b"toy.bumped",
            "ce_tenantid": str(tenant).encode(),
            "ce_sequence": b"1",
            "ce_time": b"2026-01-01T00:00:00Z",
        }
        body = f'{{"counter_id":"{counter}","value":{value}}}'.encode()
        key = f"{tenant}:{counter}".encode()
        await producer.send_and_wait(f"{toy.prefix}toy.v1", body, key, partition=0, headers=[*headers.items(), *more])

    yield send
    await producer.stop()


async def _applied(toy: Toy, tenant: UUID, expected: int) -> int:
    deadline = time.monotonic() + 30
    while (applied := (await toy.totals([tenant]))["applied"]) < expected and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    return applied


async def _refused(toy: Toy) -> list[tuple[Any, ...]]:
    connection = await toy.as_admin()
    try:
        return [tuple(row) for row in await connection.fetch("SELECT state, reason FROM inbox_parked ORDER BY off")]
    finally:
        await connection.close()


async def test_a_header_without_a_value_and_an_event_too_large_to_write_cost_nobody_else_anything(
    toy: Toy, send: Callable[..., Awaitable[None]]
) -> None:
    tenant, counters = uuid4(), [uuid4() for _ in range(5)]
    for number, counter in enumerate(counters):
        await send(tenant, counter, HUGE if number == 2 else HEALTHY, ("x", None))
    async with toy.shell() as plain:
        shell = Shell(plain.database, (COUNTERS, TALLIES), HANDLERS, service=SERVICE, hints=plain._hints)
        async with toy.member(shell):
            assert await _applied(toy, tenant, 4) == 4
            await send(tenant, counters[0], HEALTHY)
            assert await _applied(toy, tenant, 5) == 5
    assert await _refused(toy) == [("parked", "event-too-large")]


async def test_a_consumer_put_back_behind_what_is_stored_applies_nothing_twice(
    toy: Toy, send: Callable[..., Awaitable[None]]
) -> None:
    tenant, counter = uuid4(), uuid4()
    async with toy.shell() as shell, toy.member(shell) as inbox:
        for _ in range(3):
            await send(tenant, counter, HEALTHY)
        assert await _applied(toy, tenant, 3) == 3
        # As a rebalance does whose own seek comes late: the inbox knows where it stands, the consumer does not.
        inbox.members[0]._subscriber.consumer.seek(TopicPartition(f"{toy.prefix}toy.v1", 0), 0)
        await asyncio.sleep(1)
        await send(tenant, counter, HEALTHY)
        assert await _applied(toy, tenant, 4) == 4
        await asyncio.sleep(1)
        assert await _applied(toy, tenant, 4) == 4


@pytest.mark.parametrize(("mistakes", "before"), [(1, 0), (3, 6)], ids=["one poll after the other", "all in one poll"])
async def test_a_mistake_of_our_own_is_tried_again_and_no_message_is_passed_over(
    toy: Toy, send: Callable[..., Awaitable[None]], mistakes: int, before: int
) -> None:
    tenant, counter = uuid4(), uuid4()
    async with toy.shell() as plain:
        shell = Stumbling(plain.database, (COUNTERS, TALLIES), HANDLERS, service=SERVICE, hints=plain._hints)
        shell.mistakes = mistakes  # of a message that is alone, the second is believed
        for _ in range(before):
            await send(tenant, counter, HEALTHY)
        async with toy.member(shell):
            for _ in range(6 - before):
                await send(tenant, counter, HEALTHY)
                await asyncio.sleep(0.3)
            assert await _applied(toy, tenant, 6) == 6
    assert shell.mistakes == 0
    assert await _refused(toy) == []


async def test_a_mistake_in_reading_is_tried_again_and_no_message_is_passed_over(
    toy: Toy, send: Callable[..., Awaitable[None]]
) -> None:
    tenant, counter = uuid4(), uuid4()
    async with toy.shell() as shell, toy.member(shell) as inbox:
        reader = inbox.members[0]._reader = StumblingReader(shell.handlers.events(), topic_prefix=toy.prefix)
        for _ in range(3):
            await send(tenant, counter, HEALTHY)
        assert await _applied(toy, tenant, 3) == 3
    assert reader.mistakes == 0


async def test_what_was_polled_while_the_database_was_away_is_applied_when_it_is_back_though_nothing_else_arrives(
    toy: Toy, send: Callable[..., Awaitable[None]]
) -> None:
    tenant, counter = uuid4(), uuid4()
    retried = RETRIED._value.get()
    async with toy.shell() as shell, _administrator(toy) as administrator, toy.member(shell) as inbox:
        reporting = asyncio.create_task(inbox.report())
        await send(tenant, counter, HEALTHY)
        assert await _applied(toy, tenant, 1) == 1
        await _let_in(administrator, toy, "false")
        await send(tenant, counter, HEALTHY)
        while RETRIED._value.get() == retried:
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)  # the way back fails too: where the partition stands cannot be read
        await _let_in(administrator, toy, "true")
        assert await _applied(toy, tenant, 2) == 2
        reporting.cancel()


@asynccontextmanager
async def _administrator(toy: Toy) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(toy.admin_url)
    try:
        yield connection
    finally:
        await _let_in(connection, toy, "true")
        await connection.close()


async def _let_in(administrator: Any, toy: Toy, is_open: str) -> None:
    """Open the service's database, or close it to everybody, also to those who are in."""
    database = toy.prefix + SERVICE
    await administrator.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS {is_open}')
    if is_open == "false":
        await administrator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database)


async def test_records_that_kafka_deleted_before_they_were_read_are_missed_aloud_and_what_is_left_is_applied(
    toy: Toy, send: Callable[..., Awaitable[None]]
) -> None:
    tenant, counter, topic = uuid4(), uuid4(), f"{toy.prefix}toy.v1"

    async def delete_before(offset: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=toy.settings.kafka_bootstrap_servers)
        await admin.start()
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=offset)})
        await admin.close()

    async def come_and_go(expected: int) -> None:
        async with toy.member(shell):
            assert await _applied(toy, tenant, expected) == expected

    missed = MISSED.labels(topic)
    for _ in range(3):
        await send(tenant, counter, HEALTHY)
    await delete_before(1)
    async with toy.shell() as shell:
        await come_and_go(2)
        assert missed._value.get() == 0  # a group that was never here begins with what there is
        for _ in range(4):
            await send(tenant, counter, HEALTHY)
        await delete_before(5)
        await come_and_go(4)
        assert missed._value.get() == 2
        await send(tenant, counter, HEALTHY)
        await come_and_go(5)
        assert missed._value.get() == 2


async def test_what_was_polled_behind_a_transaction_that_fails_is_applied_once_and_in_order(toy: Toy) -> None:
    tenants = [uuid4() for _ in range(3)]
    keys = [(tenants[number % 3], uuid4()) for number in range(60)]
    async with toy.shell() as plain, toy.relay("only"):
        for _ in range(20):
            await plain.execute_many([command(*key) for key in keys * 10])
        shell = Shaky(plain.database, (COUNTERS, TALLIES), TOY_HANDLERS, service=SERVICE, hints=plain._hints)
        shell.chance = seeded(int(time.time()))
        async with toy.member(shell):
            deadline = time.monotonic() + 60
            while (totals := await toy.totals(tenants))["applied"] < 12_000 and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
    assert totals == {"committed": 12_000, "applied": 12_000, "violations": 0}
    assert shell.failed
    assert shell.most_under_way == 2
