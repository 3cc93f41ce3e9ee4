"""FastStream as the inbox uses it: a connection, a listener, and a parser that nothing can break."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

from aiokafka import TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import KafkaError
from faststream.kafka import KafkaBroker, KafkaMessage

from libs.common.messaging.broker import Broker
from libs.common.messaging.envelope import KafkaRecord
from libs.common.messaging.reading import Consumer


class _Kafka(KafkaBroker):
    """FastStream's broker, whose subscribers read with our consumer, from where and as whom our other clients do."""

    def __init__(self, ours: Broker, **options: Any) -> None:
        super().__init__(ours.bootstrap_servers, **options)
        self._ours = ours

    async def _connect(self) -> Callable[..., Consumer]:
        made = await super()._connect()
        config = self.config.broker_config
        config.builder = partial(Consumer, **made.keywords | self._ours.client)  # type: ignore[attr-defined]  # it is a partial, typed as less
        return config.builder


def kafka_broker(broker: Broker, client_id: str = "cartwright") -> KafkaBroker:
    """FastStream's broker on our cluster. It never creates a topic, and publishes nothing: that is the relay's."""
    return _Kafka(
        broker,
        client_id=client_id,
        logger=None,
        consumer_only=True,
        # There is nothing to inject, and looking for it costs two thread hand-overs a poll.
        apply_types=False,
        serializer=None,
        graceful_timeout=15,
        allow_auto_create_topics=False,
    )


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Tells the inbox what it has been given."""

    def __init__(self, assigned: Callable[[Sequence[TopicPartition]], Awaitable[None]]) -> None:
        self._assigned = assigned

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Nothing to save: what is not committed was not done."""

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Find out where they stand."""
        await self._assigned(list(assigned))


async def parse(records: tuple[KafkaRecord, ...]) -> KafkaMessage:
    """Keep the records as they came: the framework's own parser drops a message whose header is not UTF-8."""
    return KafkaMessage(raw_message=records, body=b"", headers={}, consumer=None)  # type: ignore[arg-type]


async def records_of(message: KafkaMessage) -> tuple[KafkaRecord, ...]:
    """Decode nothing; the envelope does, once."""
    records: tuple[KafkaRecord, ...] = message.raw_message
    return records


def tell_failed_polls(subscriber: Any, tell: Callable[[KafkaError], None]) -> None:
    """Have somebody hear why a poll failed. FastStream waits five seconds and polls again, and tells its own logger alone."""
    poll = subscriber.get_msg

    async def get_msg(consumer: Any) -> Any:
        try:
            return await poll(consumer)
        except KafkaError as error:
            tell(error)
            raise

    subscriber.get_msg = get_msg
