"""One chunk to Kafka: a record batch a partition, all acknowledged, and what the broker refuses for good named.

A producer that saw one batch refused or lost is never used again: its sequence numbers have run ahead of the broker's,
which would refuse everything that follows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka

from libs.common.messaging.broker import Broker
from libs.common.messaging.headers import UnreadableHeadersError, unpack
from libs.common.messaging.relay.partitions import murmurs

ACK_SECONDS = 30
STOP_SECONDS = 2
METADATA_SECONDS = 5

log = structlog.get_logger(__name__)


class InvalidRecordError(kafka.BrokerResponseError):  # type: ignore[misc]  # aiokafka has no types
    """The broker checked a record and will not have it. aiokafka knows no such code and would call it unknown."""

    errno = 87
    message = "INVALID_RECORD"


kafka.kafka_errors.setdefault(InvalidRecordError.errno, InvalidRecordError)

OF_A_RECORD: tuple[type[Exception], ...] = (
    kafka.MessageSizeTooLargeError,
    kafka.RecordListTooLargeError,
    kafka.InvalidMessageError,
    kafka.InvalidTimestampError,
    InvalidRecordError,
    UnreadableHeadersError,
)
"""What is wrong with a record itself: sent again it would be refused again."""

OF_A_TOPIC: tuple[type[Exception], ...] = (
    kafka.UnknownTopicOrPartitionError,
    kafka.InvalidTopicError,
    kafka.TopicAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
    kafka.PolicyViolationError,
)
"""What is wrong with a topic or with our rights to it: no event is to blame, and somebody has to repair it."""

Place = tuple[str, int]
"""A topic's name in the outbox, and a partition."""


class TopicRefusedError(Exception):
    """Nothing can be published to this topic as things stand."""

    def __init__(self, topic: str, reason: str) -> None:
        super().__init__(f"{topic}: {reason}")
        self.topic, self.reason = topic, reason


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that is parked, and why."""

    row: Any
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Why the broker does not take a batch, and never will."""

    reason: str
    detail: str


def key_of(row: Any) -> tuple[str, bytes]:
    """What an order is kept for."""
    return row["topic"], row["key"]


def behind(row: Any) -> Refusal:
    """The refusal of a row whose key already has one."""
    return Refusal(row, "behind-set-aside", "an earlier event of this key is parked")


FirstCount = Callable[[str, int], Awaitable[int]]
"""Told a topic and its number of partitions now, answers the number when it was first published to."""


async def _this_count(_topic: str, count: int) -> int:
    return count


class Publisher:
    """Sends rows of the outbox with a producer that it replaces whenever it failed."""

    def __init__(self, broker: Broker) -> None:
        self.first_count: FirstCount = _this_count
        """Set for as long as there is a database to ask."""
        self._broker = broker
        self._counts: dict[str, int] = {}
        """By topic, once it was found to be what it always was."""
        self._producer: AIOKafkaProducer | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    async def send(self, position: str, rows: Sequence[Any]) -> list[Refusal]:
        """Send rows whose ordinals follow this position; answers those parked, all others being acknowledged.

        Raises TopicRefusedError, and TimeoutError or a KafkaError when the broker is away: nothing is known then, and
        the same rows are to be sent again.
        """
        places = await self._places(rows)
        await self._started()  # one for all that follow
        tries = (self._try(place, position, alike) for place, alike in places.items())
        answers = await asyncio.gather(*tries, return_exceptions=True)  # so that none is still under way when one failed
        for failure in answers:
            if isinstance(failure, BaseException):
                raise failure
        refusals: list[Refusal] = []
        for place, refused in zip(places, answers, strict=True):
            if refused is not None:
                await self.replace()
                refusals += await self._isolate(place, position, places[place])
        return refusals

    async def replace(self) -> None:
        """Forget the producer, waiting only so long for it. What it may still deliver is dropped by every watermark."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        # Its own `stop` first waits for a broker that may be away; without its sender there is nothing to wait for.
        sender = producer._sender.sender_task  # noqa: SLF001 - aiokafka has no other way to give up
        if sender is not None:
            sender.cancel()
        stopping = asyncio.create_task(_stop(producer))
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)
        await asyncio.wait({stopping}, timeout=STOP_SECONDS)

    async def _places(self, rows: Sequence[Any]) -> dict[Place, list[Any]]:
        """The rows by partition, each in its order."""
        hashes = murmurs(row["key"] for row in rows)
        counts = {topic: await self._partition_count(topic) for topic in {row["topic"] for row in rows}}
        places: dict[Place, list[Any]] = {}
        for row in rows:
            topic = row["topic"]
            places.setdefault((topic, hashes[row["key"]] % counts[topic]), []).append(row)
        return places

    async def _partition_count(self, topic: str) -> int:
        """How many partitions a topic has, which must be as many as ever: with another number keys would change places."""
        count = self._counts.get(topic)
        if count is None:
            count = await self._count(self._broker.topic(topic))
            first = await self.first_count(topic, count)
            if count != first:
                reason = f"it has {count} partitions, and {first} when first published to: keys would lose their order"
                raise TopicRefusedError(self._broker.topic(topic), reason)
            self._counts[topic] = count
        return count

    async def _count(self, name: str) -> int:
        producer = await self._started()
        try:
            return await self._broker.partition_count(producer, name)
        except OF_A_TOPIC as error:
            raise TopicRefusedError(name, type(error).__name__) from error
        except TimeoutError as error:
            async with asyncio.timeout(METADATA_SECONDS):
                answered = await producer.client.force_metadata_update()
            if answered:  # so the broker is there, and does not know the topic
                raise TopicRefusedError(name, "the broker knows no such topic") from error
            raise

    async def _try(self, place: Place, position: str, rows: Sequence[Any]) -> Refused | None:
        """Send one partition's rows, one batch after the other; answers why if the broker refuses one for good."""
        topic, partition = self._broker.topic(place[0]), place[1]
        try:
            producer = await self._started()
            for batch in _batches(producer, position, rows):
                async with asyncio.timeout(ACK_SECONDS):
                    await (await producer.send_batch(batch, topic, partition=partition))
        except OF_A_RECORD as error:
            return Refused(type(error).__name__.removesuffix("Error"), str(error))
        except OF_A_TOPIC as error:
            raise TopicRefusedError(topic, type(error).__name__) from error
        return None

    async def _isolate(self, place: Place, position: str, rows: Sequence[Any]) -> list[Refusal]:
        """Halve a refused batch until each culprit is alone, in order, and never past a culprit of the same key."""
        why = await self._try(place, position, rows)
        if why is None:
            return []
        await self.replace()
        if len(rows) == 1:
            return [Refusal(rows[0], why.reason, why.detail)]
        half = len(rows) // 2
        refusals = await self._isolate(place, position, rows[:half])
        refused = {key_of(refusal.row) for refusal in refusals}
        refusals += [behind(row) for row in rows[half:] if key_of(row) in refused]
        rest = [row for row in rows[half:] if key_of(row) not in refused]
        return refusals + (await self._isolate(place, position, rest) if rest else [])

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            self._producer = await self._broker.producer()
        return self._producer


def _batches(producer: AIOKafkaProducer, position: str, rows: Sequence[Any]) -> Iterator[Any]:
    """The rows as closed record batches."""
    batch = producer.create_batch()
    for row in rows:
        headers = unpack(row["headers"])
        headers.append(("ce_relayposition", f"{position}{row['n']}".encode()))
        if batch.append(timestamp=None, key=row["key"], value=row["payload"], headers=headers) is None:
            yield batch
            batch = producer.create_batch()
            batch.append(timestamp=None, key=row["key"], value=row["payload"], headers=headers)
    batch.close()
    yield batch


async def _stop(producer: AIOKafkaProducer) -> None:
    try:
        await producer.stop()
    except (asyncio.CancelledError, Exception) as error:  # noqa: BLE001 - it is done for, however it ends
        log.info("relay.producer_abandoned", error=str(error))
    finally:
        await producer.client.close()
