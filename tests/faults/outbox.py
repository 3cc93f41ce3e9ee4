"""An outbox that is written to past the service, and what has come of it in Kafka."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from libs.common.clock import new_id
from libs.common.messaging.attributes import parse_position
from libs.common.messaging.headers import pack
from libs.common.telemetry import REGISTRY
from tests.shared.limits import limit_topic
from tests.shared.toy import TOPIC, Toy

ROOT = Path(__file__).parents[2]
INSERT = """INSERT INTO outbox_event (event_id, tenant_id, topic, key, headers, payload)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bytea[], $5::bytea[], $6::bytea[])"""
WAITING = "SELECT key, state, reason FROM outbox_parked WHERE state = 'parked' ORDER BY id"

UNDECIDED = "SELECT FROM outbox_parked WHERE state IN ('replaying', 'discarding')"

MakeToy = Callable[[], Toy]


class Writer:
    """Writes events with sequences that count for each key, as a service does: in order, in short transactions."""

    def __init__(self, connection: Any, topic: str = TOPIC) -> None:
        self.written: dict[bytes, int] = defaultdict(int)
        self._connection = connection
        self._topic = topic

    async def write(self, *keys: tuple[UUID, str], payload_bytes: int = 20) -> None:
        tenants = ",".join({str(tenant) for tenant, _ in keys})
        rows = []
        for tenant, name in keys:
            key = f"{tenant}:{name}".encode()
            self.written[key] += 1
            headers = pack([("ce_id", "x"), ("ce_sequence", str(self.written[key]))])
            rows.append((new_id(), tenant, self._topic, key, headers, b"x" * payload_bytes))
        await self._connection.execute(f"BEGIN; SET LOCAL cartwright.tenant_ids = '{tenants}'")
        await self._connection.execute(INSERT, *(list(column) for column in zip(*rows, strict=True)))
        await self._connection.execute("COMMIT")


@asynccontextmanager
async def connected(toy: Toy, role: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(toy.url(role))
    try:
        yield connection
    finally:
        await connection.close()


async def delivered(toy: Toy, topic: str = TOPIC) -> tuple[dict[bytes, list[int]], list[Any]]:
    """What a consumer with watermarks makes of the topic: the sequences of each key; and every record there is."""
    consumer = AIOKafkaConsumer(bootstrap_servers=toy.settings.kafka_bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    name = toy.prefix + topic
    consumer.assign([TopicPartition(name, partition) for partition in range(6)])
    ends = await consumer.end_offsets(consumer.assignment())
    records: list[Any] = []
    while any([await consumer.position(partition) < end for partition, end in ends.items()]):
        for batch in (await consumer.getmany(timeout_ms=500)).values():
            records.extend(batch)
    await consumer.stop()
    marks: dict[int, Any] = {}
    sequences: dict[bytes, list[int]] = defaultdict(list)
    for record in records:
        headers = dict(record.headers)
        _, position = parse_position(headers["ce_relayposition"].decode())
        if position > marks.get(record.partition, (-1, -1, -1)):
            marks[record.partition] = position
            sequences[record.key].append(int(headers["ce_sequence"]))
    return sequences, records


async def until(condition: Callable[[], Any], seconds: float = 90) -> float:
    begun = time.monotonic()
    while not await condition():
        assert time.monotonic() - begun < seconds, "it never came about"
        await asyncio.sleep(0.02)
    return time.monotonic() - begun


async def all_published(toy: Toy) -> None:
    """Until the cursor has passed everything that is committed."""
    done = """SELECT hi IS NULL AND NOT EXISTS (SELECT FROM outbox_event WHERE NOT pg_visible_in_snapshot(txid, lo))
    FROM outbox_cursor"""
    async with connected(toy, "relay") as relay:
        await until(lambda: relay.fetchval(done))


def unpublished_age() -> float:
    return REGISTRY.get_sample_value("cartwright_relay_unpublished_age_seconds") or 0.0


async def limit(toy: Toy, max_bytes: int) -> None:
    """Change how large a batch the topic takes, and wait until it does."""
    await limit_topic(toy.prefix + TOPIC, max_bytes, bootstrap_servers=toy.settings.kafka_bootstrap_servers)
    await asyncio.sleep(1)
