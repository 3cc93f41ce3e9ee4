"""Catalogue and inventory as the rest of the company sees them: systems of their own that publish facts to Kafka.

They know nothing of our services but the published language: CloudEvents 1.0 in Kafka's binary mode, keyed by tenant
and SKU, numbered per SKU. Numbers and ids follow from what is published, so that publishing again repeats the same
events, and consumers drop them.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid5

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from deploy.cli.errors import CommandError, ExitCode
from deploy.local.environment import variable
from libs.common.clock import now, rfc3339

if TYPE_CHECKING:
    from deploy.local.description import StackDescription

_START_SECONDS: Final = 15
_IN_FLIGHT: Final = 2_000


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record, ready to be sent."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Fact:
    """Something another system says about one SKU of a tenant."""

    topic: str
    type: str
    source: str
    tenant_id: UUID
    sku: str
    sequence: int
    content: dict[str, Any]

    def record(self) -> Record:
        """Write the fact as a CloudEvent in binary mode."""
        key = f"{self.tenant_id}:{self.sku}"
        attributes = {
            "ce_specversion": "1.0",
            "ce_id": str(uuid5(self.tenant_id, f"{self.topic}:{self.sku}:{self.sequence}")),
            "ce_source": self.source,
            "ce_type": self.type,
            "ce_subject": self.sku,
            "ce_time": rfc3339(now()),
            "ce_tenantid": str(self.tenant_id),
            "ce_partitionkey": key,
            "ce_sequence": str(self.sequence),
            "content-type": "application/json",
        }
        headers = [(name, text.encode()) for name, text in attributes.items()]
        return Record(self.topic, key.encode(), orjson.dumps({"sku": self.sku, **self.content}), headers)


class Publisher:
    """Sends records in the order given; done means every replica has them."""

    def __init__(self, producer: AIOKafkaProducer, topic_prefix: str) -> None:
        """Borrow a started producer."""
        self._producer = producer
        self._topic_prefix = topic_prefix

    async def publish(self, records: Iterable[Record]) -> int:
        """Send all the records and return how many they were."""
        pending: list[asyncio.Future[Any]] = []
        count = 0
        try:
            for record in records:
                topic = self._topic_prefix + record.topic
                headers = record.headers
                pending.append(await self._producer.send(topic, key=record.key, value=record.value, headers=headers))
                count += 1
                if len(pending) >= _IN_FLIGHT:
                    await asyncio.gather(*pending)
                    pending.clear()
            await asyncio.gather(*pending)
        except KafkaError as error:
            raise CommandError(f"Kafka does not take the events: {error}", ExitCode.ENVIRONMENT) from error
        return count


@asynccontextmanager
async def publishing(stack: "StackDescription") -> AsyncIterator[Publisher]:
    """Yield a publisher to the stack's broker."""
    producer = AIOKafkaProducer(enable_idempotence=True, acks="all", linger_ms=2, **client_arguments(stack))
    try:
        async with asyncio.timeout(_START_SECONDS):
            await producer.start()
    except (KafkaError, OSError, TimeoutError) as error:
        await producer.stop()
        where = stack.kafka_bootstrap_servers
        raise CommandError(f"Kafka at {where} does not answer: see ./cartwright status", ExitCode.ENVIRONMENT) from error
    try:
        yield Publisher(producer, stack.topic_prefix)
    finally:
        await producer.stop()


def client_arguments(stack: "StackDescription") -> dict[str, Any]:
    """Return how any Kafka client of this command reaches the broker and proves who it is."""
    protocol = variable("KAFKA_SECURITY_PROTOCOL") or "PLAINTEXT"
    arguments: dict[str, Any] = {
        "bootstrap_servers": stack.kafka_bootstrap_servers,
        "security_protocol": protocol,
    }
    if protocol.endswith("SSL"):
        arguments["ssl_context"] = ssl.create_default_context(cafile=variable("KAFKA_SSL_CAFILE"))
    if protocol.startswith("SASL"):
        arguments |= {
            "sasl_mechanism": variable("KAFKA_SASL_MECHANISM") or "SCRAM-SHA-512",
            "sasl_plain_username": variable("KAFKA_SASL_USERNAME"),
            "sasl_plain_password": variable("KAFKA_SASL_PASSWORD"),
        }
    return arguments
