"""The kernel under fire, in little: the long proofs come with their own issue."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from libs.common.messaging.shell import Shell
from tests.shared.toy import Toy, command, seeded

KEYS = 20
WRITERS = 8
ENOUGH = 100


@pytest.fixture
async def toy(admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str]) -> Toy:
    toy = Toy(admin_url, bootstrap_servers, fresh_prefix("toy"))
    await toy.prepare()
    return toy


async def _settled(toy: Toy, tenants: list[UUID], seconds: float = 120) -> dict[str, int]:
    deadline = time.monotonic() + seconds
    while True:
        totals = await toy.totals(tenants)
        if totals["applied"] >= totals["committed"] or time.monotonic() > deadline:
            return totals
        await asyncio.sleep(0.1)


async def test_every_commit_is_applied_once_and_in_order_while_relays_die_two_relays_live_and_members_come_and_go(
    toy: Toy,
) -> None:
    chance = seeded(int(time.time()))
    tenants = [uuid4() for _ in range(3)]
    keys = [(chance.choice(tenants), uuid4()) for _ in range(KEYS)]
    least = time.monotonic() + 12
    written = 0

    def goes_on() -> bool:
        return time.monotonic() < least or written <= ENOUGH

    async def write(shell: Shell) -> None:
        nonlocal written
        while goes_on():
            await shell.execute(command(*chance.choice(keys)))
            written += 1
            if chance.random() < 0.2:
                await _roll_back(toy, *chance.choice(keys))

    async def relay(name: str) -> None:
        while goes_on():
            async with toy.relay(name):  # ends by cancellation wherever it happens to be
                await asyncio.sleep(chance.uniform(0.05, 1))

    async def member(shell: Shell) -> None:
        while goes_on():
            async with toy.member(shell):
                await asyncio.sleep(chance.uniform(1, 4))

    async with AsyncExitStack() as stack:
        shell = await stack.enter_async_context(toy.shell())
        # The same name twice: neither lease keeps the other out, only the compare-and-set does.
        relays = [relay("one"), relay("one"), relay("two")]
        await asyncio.gather(*relays, *(write(shell) for _ in range(WRITERS)), member(shell), member(shell))
        await stack.enter_async_context(toy.relay("last"))
        await stack.enter_async_context(toy.member(shell))
        totals = await _settled(toy, tenants)
    assert totals["committed"] > ENOUGH
    assert totals == {"committed": totals["committed"], "applied": totals["committed"], "violations": 0}


async def test_a_relay_that_sends_everything_twice_causes_every_effect_once(toy: Toy) -> None:
    tenant = uuid4()
    counter = uuid4()
    async with toy.shell() as shell, toy.relay("only"), toy.member(shell):
        for _ in range(50):
            await shell.execute(command(tenant, counter))
        assert (await _settled(toy, [tenant]))["applied"] == 50
        again = await _every_record(toy, 50)
        producer = AIOKafkaProducer(bootstrap_servers=toy.settings.kafka_bootstrap_servers)
        await producer.start()
        for record in again:
            await producer.send_and_wait(
                record.topic, record.value, record.key, partition=record.partition, headers=list(record.headers)
            )
        await producer.stop()
        await shell.execute(command(tenant, counter))
        totals = await _settled(toy, [tenant])
    assert totals == {"committed": 51, "applied": 51, "violations": 0}


async def test_what_cannot_be_read_is_listed_with_its_reason_and_blocks_nobody(toy: Toy) -> None:
    tenant, counter = uuid4(), uuid4()
    key = f"{tenant}:{counter}".encode()
    good = {
        "ce_id": b"1",
        "ce_source": b"/x",
        "ce_type": b"toy.bumped",
        "ce_tenantid": str(tenant).encode(),
        "ce_sequence": b"1",
        "ce_time": b"2026-01-01T00:00:00Z",
    }
    value = f'{{"counter_id":"{counter}","value":1}}'.encode()
    records = [
        ("undecodable-header", key, {**good, "ce_actor": b"\xff"}, value),
        ("malformed", key, {name: text for name, text in good.items() if name != "ce_id"}, value),
        ("malformed", key, {**good, "ce_sequence": b"one"}, value),
        ("unknown-version", key, {**good, "ce_dataschema": b"urn:cartwright:schema:toy.bumped:9"}, value),
        ("schema", key, good, b"not json"),
        ("schema", key, good, b'{"counter_id":"x"}'),
        ("tenant-mismatch", f"{uuid4()}:{counter}".encode(), good, value),
    ]
    async with toy.shell() as shell, toy.relay("only"), toy.member(shell):
        producer = AIOKafkaProducer(bootstrap_servers=toy.settings.kafka_bootstrap_servers)
        await producer.start()
        for _, record_key, headers, body in records:
            await producer.send_and_wait(toy.prefix + "toy.v1", body, record_key, headers=list(headers.items()))
        await producer.stop()
        await shell.execute(command(tenant, counter))
        assert (await _settled(toy, [tenant]))["applied"] == 1
        refused = await _refused(toy, len(records))
    assert sorted(refused) == sorted(("rejected", reason) for reason, *_ in records)


async def test_a_poisoned_key_waits_in_order_while_every_other_key_flows(toy: Toy) -> None:
    tenant, poisoned, healthy = uuid4(), uuid4(), uuid4()
    async with toy.shell() as shell, toy.member(shell):
        producer = AIOKafkaProducer(bootstrap_servers=toy.settings.kafka_bootstrap_servers)
        await producer.start()
        for sequence, (counter, value) in enumerate([(poisoned, 1), (poisoned, -1), (poisoned, 3), (healthy, 1), (poisoned, 4)]):
            headers = {
                "ce_id": str(sequence).encode(),
                "ce_source": b"/x",
                "ce_type": b"toy.bumped",
                "ce_tenantid": str(tenant).encode(),
                "ce_sequence": b"1",
                "ce_time": b"2026-01-01T00:00:00Z",
            }
            body = f'{{"counter_id":"{counter}","value":{value}}}'.encode()
            await producer.send_and_wait(
                toy.prefix + "toy.v1", body, f"{tenant}:{counter}".encode(), partition=0, headers=list(headers.items())
            )
        await producer.stop()
        refused = await _refused(toy, 3)
        totals = await toy.totals([tenant])
    assert refused == [("parked", "ValueError"), ("queued", "behind-parked"), ("queued", "behind-parked")]
    assert totals["applied"] == 2


async def _roll_back(toy: Toy, tenant_id: UUID, counter_id: UUID) -> None:
    """A transaction that takes its id early, writes an event and never commits."""
    connection = await asyncpg.connect(toy.url("app"))
    try:
        await connection.execute(f"BEGIN; SET LOCAL cartwright.tenant_ids = '{tenant_id}'; SELECT pg_current_xact_id()")
        await connection.execute(
            "INSERT INTO outbox_event (event_id, tenant_id, topic, key, headers, payload) "
            "VALUES ($1, $2, 'toy.v1', $3, '[]', '{}')",
            uuid4(),
            tenant_id,
            f"{tenant_id}:{counter_id}".encode(),
        )
        await connection.execute("ROLLBACK")
    finally:
        await connection.close()


async def _every_record(toy: Toy, count: int) -> list[Any]:
    consumer = AIOKafkaConsumer(
        toy.prefix + "toy.v1", bootstrap_servers=toy.settings.kafka_bootstrap_servers, auto_offset_reset="earliest"
    )
    await consumer.start()
    records: list[Any] = []
    while len(records) < count:
        for batch in (await consumer.getmany(timeout_ms=500)).values():
            records.extend(batch)
    await consumer.stop()
    return records


async def _refused(toy: Toy, count: int) -> list[tuple[str, str]]:
    connection = await toy.as_admin()
    try:
        for _ in range(200):
            rows = await connection.fetch("SELECT state, reason FROM inbox_parked ORDER BY topic, part, off")
            if len(rows) >= count:
                break
            await asyncio.sleep(0.05)
        return [(row["state"], row["reason"]) for row in rows]
    finally:
        await connection.close()
