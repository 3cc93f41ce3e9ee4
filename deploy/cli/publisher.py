"""Catalogue and inventory as the rest of the company sees them: systems of their own that publish facts to Kafka.

They know nothing of our services but the published language: CloudEvents 1.0 in Kafka's binary mode, keyed by tenant
and SKU, numbered per SKU. Numbers and ids follow from what is published, so that publishing again repeats the same
events, and consumers drop them.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid5

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from deploy.cli.errors import CommandError, ExitCode
from deploy.local.access import declared_access
from deploy.local.kafka.client import client_options
from libs.common.clock import now, rfc3339

if TYPE_CHECKING:
    from deploy.local.description import StackDescription

_START_SECONDS: Final = 15
_IN_FLIGHT: Final = 2_000

OPERATOR: Final = "operator"
"""Who reads the topics, on behalf of the people at the command line."""


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
    """Sends records in the order given, each as the system that its topic belongs to; done means every replica has them."""

    def __init__(self, stack: "StackDescription", opened: AsyncExitStack) -> None:
        """Borrow a stack, whose producers are closed by whoever holds what was opened."""
        self._stack, self._opened = stack, opened
        self._access = declared_access()
        self._producers: dict[str, AIOKafkaProducer] = {}

    async def publish(self, records: Iterable[Record]) -> int:
        """Send all the records and return how many they were. Raises CommandError when Kafka does not take them."""
        pending: list[asyncio.Future[Any]] = []
        count = 0
        for record in records:
            pending.append(await self._sent(record))
            count += 1
            if len(pending) >= _IN_FLIGHT:
                await _taken(pending)
                pending.clear()
        await _taken(pending)
        return count

    async def _sent(self, record: Record) -> asyncio.Future[Any]:
        producer, topic = await self._producer(record.topic), self._stack.topic_prefix + record.topic
        with _told():
            sent: asyncio.Future[Any] = await producer.send(topic, key=record.key, value=record.value, headers=record.headers)
        return sent

    async def _producer(self, topic: str) -> AIOKafkaProducer:
        name = self._speaker(topic)
        if name not in self._producers:
            self._producers[name] = await self._opened.enter_async_context(_producing(self._stack, name))
        return self._producers[name]

    def _speaker(self, topic: str) -> str:
        if not self._stack.kafka_sasl:
            return ""  # on the user's cluster we are who he says we are, and may do what he may
        owner = self._access.writer_of(topic)
        if owner is None:
            raise _refused(topic)
        return owner.name


@asynccontextmanager
async def publishing(stack: "StackDescription") -> AsyncIterator[Publisher]:
    """Yield a publisher to the stack's broker."""
    async with AsyncExitStack() as opened:
        yield Publisher(stack, opened)


@asynccontextmanager
async def _producing(stack: "StackDescription", principal: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(enable_idempotence=True, acks="all", linger_ms=2, **client_arguments(stack, principal))
    try:
        async with asyncio.timeout(_START_SECONDS):
            await producer.start()
    except (KafkaError, OSError, TimeoutError) as error:
        await producer.stop()
        where = stack.kafka_bootstrap_servers
        raise CommandError(f"Kafka at {where} does not answer: see ./cartwright status", ExitCode.ENVIRONMENT) from error
    try:
        yield producer
    finally:
        await producer.stop()


def client_arguments(stack: "StackDescription", principal: str = OPERATOR) -> dict[str, Any]:
    """Return how a Kafka client of this command reaches the broker and proves who it is."""
    if stack.kafka_sasl:
        return stack.kafka_sasl.client(principal)
    return {"bootstrap_servers": stack.kafka_bootstrap_servers, **client_options()}


async def _taken(pending: Iterable[asyncio.Future[Any]]) -> None:
    with _told():
        await asyncio.gather(*pending)


@contextmanager
def _told() -> Iterator[None]:
    """Tell a refusal in one line."""
    try:
        yield
    except TopicAuthorizationFailedError as error:
        raise _refused(str(error.args[0])) from error
    except KafkaError as error:
        raise CommandError(f"Kafka does not take the events: {error}", ExitCode.ENVIRONMENT) from error


def _refused(topic: str) -> CommandError:
    return CommandError(f"{topic} may not be written to from here: deploy/topics.yaml says who may")
