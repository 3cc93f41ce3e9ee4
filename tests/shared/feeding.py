"""A toy service whose topic a test fills record by record, and a broker whose disk it may lay hands on."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from deploy.local.kafka.broker import EmbeddedKafka
from deploy.local.ports import spare_port
from deploy.local.state import Home
from tests.shared.places import drop
from tests.shared.toy import PARTITIONS, SERVICE, TOPIC, Toy

PATIENCE_SECONDS = 90


@pytest.fixture
async def own_kafka(tmp_path: Path) -> AsyncIterator[EmbeddedKafka]:
    """A broker of the test's own; its disk is `home/kafka`."""
    home = Home(tmp_path / "home")
    home.prepare()
    kafka = EmbeddedKafka(home, {name: spare_port() for name in ("kafka", "kafka.controller", "kafka.sasl")}, access="open")
    await kafka.start()
    yield kafka
    await kafka.kill()


@asynccontextmanager
async def toy_at(admin_url: str, bootstrap_servers: str, prefix: str) -> AsyncIterator[Toy]:
    toy = Toy(admin_url, bootstrap_servers, prefix)
    await toy.prepare()
    yield toy
    await drop(admin_url, [toy.prefix + SERVICE])


def bump(tenant: UUID, counter: UUID) -> dict[str, Any]:
    headers = [
        ("ce_id", str(uuid4()).encode()),
        ("ce_source", b"/x"),
        ("ce_type", b"toy.bumped"),
        ("ce_tenantid", str(tenant).encode()),
        ("ce_sequence", b"1"),
        ("ce_time", b"2026-01-01T00:00:00Z"),
        ("padding", b"." * 3_000),  # so that Kafka's index has an entry for every other batch
    ]
    return {
        "value": f'{{"counter_id":"{counter}","value":1}}'.encode(),
        "key": f"{tenant}:{counter}".encode(),
        "headers": headers,
    }


@asynccontextmanager
async def producer_at(toy: Toy, **how: Any) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=toy.settings.kafka_bootstrap_servers, acks="all", **how)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def send(producer: AIOKafkaProducer, place: TopicPartition, bumps: Sequence[dict[str, Any]]) -> int:
    """Send each in a batch of its own; answers the offset of the last."""
    for bump in bumps:
        sent = await producer.send_and_wait(place.topic, partition=place.partition, **bump)
    return int(sent.offset)


async def until(ask: Callable[[], Any], is_so: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so(found := await ask()) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    return found


async def applied(toy: Toy, tenant: UUID, expected: int) -> int:
    async def ask() -> int:
        return (await toy.totals([tenant]))["applied"]

    return int(await until(ask, lambda applied: applied >= expected))


async def rows(toy: Toy, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(toy.url("owner"))
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


def partitions(toy: Toy) -> list[TopicPartition]:
    return [TopicPartition(toy.prefix + TOPIC, number) for number in range(PARTITIONS)]
