"""The processes of the chaos: writers, relays, consumers and a duplicator, each the real kernel on the toy service.

They are forked from a nursery that has imported everything once, so that an actor is there in milliseconds and a hundred
of them may die. The nursery reads one part a line from its standard input and answers with the actor's process id; when
its input ends, so do they all.
"""

import asyncio
import json
import os
import random
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from libs.common.database import PASSING, Connection, Database
from libs.common.decision import Handlers, Message, Ref, World
from libs.common.errors import CartwrightError
from libs.common.messaging.broker import Broker
from libs.common.messaging.hints import Hints
from libs.common.messaging.inbox import Inbox, kafka_broker
from libs.common.messaging.relay import Relay, cursor, loop
from libs.common.messaging.shell import Shell
from libs.common.processes.worker import _consume
from tests.shared.toy import COUNTERS, GROUP, HANDLERS, SERVICE, TALLIES, TOPIC, Bump, Bumped, Tally, Toy, command, tally

POLL_GATE = 3
"""The advisory lock that a halting consumer waits for between a poll and its transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What an actor has to play."""

    role: str
    admin_url: str
    bootstrap_servers: str
    prefix: str
    slot_seconds: int = 600
    seed: int = 0
    keys: Sequence[tuple[str, str]] = ()
    """Tenant and counter."""
    tasks: int = 4
    largest: int = 20
    """Commands in the largest transaction."""
    owner: str = ""
    """Of the cursor's lease. Relays with one name do not keep each other out: only the compare-and-set does."""
    lease_seconds: float = 2
    """A standby takes over in the time of a fault, not in ten seconds."""
    listens: bool = True
    """To hints; a relay that does not looks for itself, twenty times a second."""
    halts: bool = False
    poison: int = 0

    @property
    def toy(self) -> Toy:
        return Toy(self.admin_url, self.bootstrap_servers, self.prefix)


def main() -> None:
    """Be the nursery."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    for line in iter(sys.stdin.readline, ""):
        pid = os.fork()
        if not pid:
            _play(Part(**json.loads(line)))
        print(pid, flush=True)
    os.killpg(0, signal.SIGKILL)


def _play(part: Part) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(2, 1)
    try:
        asyncio.run(ROLES[part.role](part))
    except BaseException:  # noqa: BLE001 - it ends here, whatever it was
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _asked_to_leave() -> asyncio.Event:
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    return asked


async def prepare(part: Part) -> None:
    await part.toy.prepare(slot_seconds=part.slot_seconds)


async def write(part: Part) -> None:
    """Bump counters in transactions large and small, slow and rolled back, until asked to leave."""
    asked = _asked_to_leave()
    chance = random.Random(part.seed)
    keys = [(UUID(tenant), UUID(counter)) for tenant, counter in part.keys]

    async def one_after_the_other(shell: Shell) -> None:
        while not asked.is_set():
            try:
                await _write_something(shell, chance, keys, part.largest)
            except (CartwrightError, asyncpg.PostgresError, *PASSING) as error:
                print(f"not written: {error!r}", file=sys.stderr)

    async with part.toy.shell() as shell:
        await asyncio.gather(*(one_after_the_other(shell) for _ in range(part.tasks)))


async def _write_something(shell: Shell, chance: random.Random, keys: Sequence[tuple[UUID, UUID]], largest: int) -> None:
    kind = chance.random()
    if kind < 0.15:
        await write_slowly(shell, command(*chance.choice(keys)), before=chance.uniform(0, 0.3), after=chance.uniform(0, 0.4))
    elif kind < 0.25:
        await write_slowly(shell, command(*chance.choice(keys)), after=chance.uniform(0, 0.05), commits=False)
    elif kind < 0.4:
        await shell.execute(command(*chance.choice(keys)))
    else:
        await shell.execute_many([command(*chance.choice(keys)) for _ in range(chance.randint(1, largest))])
    await asyncio.sleep(chance.uniform(0, 0.02))


class RolledBack(Exception):  # noqa: N818 - it is no error
    """A transaction was meant to leave nothing."""


async def write_slowly(
    shell: Shell,
    message: Message[Bump],
    *,
    before: float = 0,
    meanwhile: Awaitable[None] | None = None,
    after: float = 0,
    commits: bool = True,
) -> None:
    """A transaction that takes its id early, its locks later and after what happens meanwhile, and its time at the end."""
    try:
        async with shell.database.transaction([message.tenant_id]) as connection:
            await connection.execute("SELECT pg_current_xact_id()")
            await asyncio.sleep(before)
            if meanwhile is not None:
                await meanwhile
            _, aggregates = await shell.decide(connection, [message])
            await shell.store(connection, aggregates)
            await asyncio.sleep(after)
            if not commits:
                raise RolledBack  # noqa: TRY301 - so that the transaction sees it
    except RolledBack:
        return
    shell.committed(aggregates)


async def roll_back(part: Part) -> None:
    """Write one transaction that never commits."""
    [(tenant, counter)] = part.keys
    async with part.toy.shell() as shell:
        await write_slowly(shell, command(UUID(tenant), UUID(counter)), commits=False)


async def relay(part: Part) -> None:
    toy = part.toy
    for module in (cursor, loop):
        vars(module)["LEASE_SECONDS"] = part.lease_seconds
    hints = Hints(toy.url("app"), listen=part.listens)
    await hints.start()
    publishing = Relay(toy.url("relay"), database=SERVICE, broker=Broker(toy.settings), hints=hints)
    publishing._owner = part.owner or publishing._owner
    await publishing.run()


async def consume(part: Part) -> None:
    """Be a member of the group until asked to leave."""
    asked = _asked_to_leave()
    toy = part.toy
    async with _shell(part) as shell:
        broker = Broker(toy.settings)
        kafka = kafka_broker(broker)
        if part.halts:
            shell.database = Halting(shell.database.pool)
        inbox = Inbox(shell, broker, group=GROUP, topics=[TOPIC])
        inbox.subscribe(kafka)
        reporting = asyncio.create_task(inbox.report())
        await _consume(kafka, broker)
        await asked.wait()
        await kafka.stop()
        reporting.cancel()


@asynccontextmanager
async def _shell(part: Part) -> AsyncIterator[Shell]:
    async with part.toy.shell() as shell:
        if part.poison:
            rows = (COUNTERS, TALLIES)
            yield Shell(shell.database, rows, _poisoned_by(part.poison), service=SERVICE, hints=shell._hints)
        else:
            yield shell


def _poisoned_by(value: int) -> Handlers:
    handlers = Handlers(dict(HANDLERS.table))

    @handlers.on(Bumped, lambda m: [Ref(Tally, m.data.counter_id)])
    def fail_once(world: World, message: Message[Bumped]) -> None:
        if message.data.value == value:
            raise ValueError("poison")
        tally(world, message)

    return handlers


class Halting(Database):
    """Stops before each transaction for as long as a lock is held: a process may stop anywhere."""

    @asynccontextmanager
    async def transaction(self, tenant_ids: Iterable[UUID]) -> AsyncIterator[Connection]:
        async with self.acquire() as connection:
            await wait_at(connection, POLL_GATE)
        async with super().transaction(tenant_ids) as connection:
            yield connection


async def wait_at(connection: Connection, gate: int) -> None:
    await connection.execute("SET lock_timeout = 0")
    await connection.execute(f"SELECT pg_advisory_lock_shared({gate}), pg_advisory_unlock_shared({gate})")
    await connection.execute("RESET lock_timeout")


async def duplicate(part: Part) -> None:
    """Send every record a second time, verbatim, some time after the first."""
    reached: dict[TopicPartition, int] = {}
    seen: set[tuple[int, bytes]] = set()
    while True:
        try:
            await _duplicate(part.toy, reached, seen)
        except (KafkaError, OSError, TimeoutError) as error:
            print(f"duplicates interrupted: {error!r}", file=sys.stderr)
            await asyncio.sleep(0.5)


async def _duplicate(toy: Toy, reached: dict[TopicPartition, int], seen: set[tuple[int, bytes]]) -> None:
    servers = toy.settings.kafka_bootstrap_servers
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest", enable_auto_commit=False)
    producer = AIOKafkaProducer(bootstrap_servers=servers, request_timeout_ms=5_000)
    try:
        async with asyncio.timeout(10):
            await consumer.start()
            await producer.start()
            partitions = [TopicPartition(toy.prefix + TOPIC, part) for part in await producer.partitions_for(toy.prefix + TOPIC)]
        consumer.assign(partitions)
        for partition in partitions:
            consumer.seek(partition, reached.get(partition, 0))
        while True:
            for partition, records in (await consumer.getmany(timeout_ms=500, max_records=2_000)).items():
                async with asyncio.timeout(10):
                    await _resend(producer, records, seen)
                reached[partition] = records[-1].offset + 1
    finally:
        await asyncio.wait({asyncio.ensure_future(producer.stop()), asyncio.ensure_future(consumer.stop())}, timeout=2)


async def _resend(producer: Any, records: Sequence[Any], seen: set[tuple[int, bytes]]) -> None:
    sent = {}
    for record in records:
        place = (record.partition, dict(record.headers)["ce_relayposition"])
        if place not in seen:
            headers = list(record.headers)
            sent[place] = await producer.send(record.topic, record.value, record.key, partition=record.partition, headers=headers)
    for future in sent.values():
        await future
    seen.update(sent)


ROLES: dict[str, Callable[[Part], Coroutine[Any, Any, None]]] = {
    role.__name__: role for role in (prepare, write, roll_back, relay, consume, duplicate)
}

if __name__ == "__main__":
    main()
