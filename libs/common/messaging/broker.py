"""How this process reaches Kafka: addresses, credentials, topic names, and the one right way to make each client."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.conn import collect_hosts
from aiokafka.errors import StaleMetadata

from libs.common.messaging.login import REFUSALS, about, login, refused_at
from libs.common.messaging.reading import Consumer, Unreadable, note_of
from libs.common.telemetry import Counter

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord, TopicPartition

    from libs.common.settings import Settings

START_SECONDS = 10
FOLLOW_MS = 10_000
"""How long a follower waits for news; they come at once, and nobody else is waited for."""

DENIED = Counter("cartwright_broker_refused_total", "Times that the broker denied us what our work needs", ["what"])


class BrokerRefusedError(Exception):
    """The broker is there, and does not let us."""


log = structlog.get_logger(__name__)


class Broker:
    """The cluster, as the settings describe it."""

    def __init__(self, settings: "Settings") -> None:
        self.bootstrap_servers = settings.kafka_bootstrap_servers
        self.prefix = settings.topic_prefix
        self.denied: dict[str, str] = {}
        """What the broker denied us when it was last asked, by the work that it was for."""
        self._partitions: dict[str, int] = {}
        self._settings = settings

    def topic(self, name: str) -> str:
        """A topic's name on this cluster."""
        return self.prefix + name

    @property
    def client(self) -> dict[str, Any]:
        """The arguments of any aiokafka client that say where to connect, and how to prove who we are."""
        return {"bootstrap_servers": self.bootstrap_servers, **login(self._settings)}

    async def producer(self) -> AIOKafkaProducer:
        """An idempotent producer that waits for every replica. One that failed is thrown away, never reused.

        Raises BrokerRefusedError when the broker does not know us, or lets us write nowhere.
        """
        producer = AIOKafkaProducer(
            enable_idempotence=True,
            acks="all",
            linger_ms=0,
            max_batch_size=950_000,
            max_request_size=1_000_000,
            request_timeout_ms=10_000,
            **self.client,
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                await producer.start()
        except BaseException as error:
            await asyncio.wait({asyncio.ensure_future(producer.stop())}, timeout=1)
            if isinstance(error, kafka.KafkaError) and (reason := await self.refusal(error)):
                raise BrokerRefusedError(reason) from error
            raise
        return producer

    async def refusal(self, error: BaseException) -> str | None:
        """Why the broker does not let us, if that is what this error comes from; None if the broker may just be away.

        A client that is not let in says only that it cannot connect. So it is tried once more, and heard why.
        """
        if isinstance(error, REFUSALS):
            return f"{type(error).__name__.removesuffix('Error')} {about(error)}".strip()
        if not isinstance(error, kafka.KafkaConnectionError) or self._settings.kafka_security_protocol == "PLAINTEXT":
            return None
        for host, port, _ in collect_hosts(self.bootstrap_servers):
            if reason := await refused_at(host, port, login(self._settings)):
                return reason
        return None

    async def denies(self, error: BaseException, *, work: str, line: str, action: str) -> bool:
        """Whether this error comes from what the broker denies us; then that is counted, and told by a line of this name."""
        reason = await self.refusal(error)
        if reason is None:
            self.denied.pop(work, None)
            return False
        self.denied[work] = reason
        DENIED.labels(work).inc()
        log.error(line, reason=reason, action=action)
        return True

    def reader(self, *topics: str, **options: Any) -> Consumer:
        """A consumer without a group, which has yet to be started."""
        return Consumer(*topics, enable_auto_commit=False, **options, **self.client)

    async def partition_count(self, producer: AIOKafkaProducer, topic: str) -> int:
        """How many partitions a topic has. Fixed before its first use: keys would move if it changed."""
        count = self._partitions.get(topic)
        if count is None:
            async with asyncio.timeout(START_SECONDS):
                count = self._partitions[topic] = len(await producer.partitions_for(topic))
        return count

    async def follow(self, topics: Sequence[str]) -> AsyncIterator["ConsumerRecord[bytes, bytes] | None"]:
        """Every record of compacted topics from their beginning, without a group; None at their end, and in every pause there.

        Raises a KafkaError when a topic is made anew: whoever follows begins again, for what it holds is not what was read.
        """
        names = [self.topic(topic) for topic in topics]
        consumer = self.reader(*names, auto_offset_reset="earliest", fetch_max_wait_ms=FOLLOW_MS)
        try:
            await consumer.start()
            known = await consumer.topic_ids(names)
            ends: dict[TopicPartition, int] = await consumer.end_offsets(consumer.assignment())
            while True:
                if ends and all([await consumer.position(partition) >= end for partition, end in ends.items()]):
                    ends = {}
                    yield None
                found = await consumer.getmany(timeout_ms=FOLLOW_MS)
                if not found:
                    await _demand_same(consumer, known)
                    yield None
                for records in found.values():
                    for record in records:
                        note = note_of(record)
                        if note is None:
                            yield record
                        elif isinstance(note, Unreadable):
                            _report_unreadable(record.topic, record.partition, note)
        finally:
            await consumer.stop()


def _report_unreadable(topic: str, partition: int, note: Unreadable) -> None:
    log.critical(
        "follower.unreadable", topic=topic, partition=partition, detail=note.detail, action="passed over: have it sent again"
    )


async def _demand_same(consumer: Consumer, known: Mapping[str, UUID | None]) -> None:
    if await consumer.topic_ids(known) != known:
        raise StaleMetadata("a topic was made anew")
