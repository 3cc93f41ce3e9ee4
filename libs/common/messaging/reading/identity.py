"""Which log a partition is: Kafka names a topic anew each time it is made, and counts the leaders that a partition has had.

Offsets alone do not tell: those of a log that was lost and made anew begin at zero again. aiokafka's own metadata request
is older than topic ids, so this is a newer one of the same protocol (KIP-516: `Metadata`, version 12).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from uuid import UUID

from aiokafka import TopicPartition
from aiokafka import errors as kafka
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

NO_ID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Log:
    """What Kafka says of a partition's log. Without a topic id where the broker is too old to have any."""

    topic_id: UUID | None
    leader_epoch: int


class _Uuid(AbstractType[UUID]):  # type: ignore[misc]  # aiokafka has no types
    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))


_TEXT = CompactString("utf-8")

_PARTITION = (
    ("error_code", Int16),
    ("partition", Int32),
    ("leader", Int32),
    ("leader_epoch", Int32),
    ("replicas", CompactArray(Int32)),
    ("isr", CompactArray(Int32)),
    ("offline_replicas", CompactArray(Int32)),
    ("tags", TaggedFields),
)


class _Answer(Response):  # type: ignore[misc]  # as above
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), ("tags", TaggedFields)),
        ),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", _TEXT),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                ("partitions", CompactArray(*_PARTITION)),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _Question(RequestStruct):  # type: ignore[misc]  # as above
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 12
    RESPONSE_TYPE = _Answer
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("topic", _TEXT), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class LogRequest(Request[_Question]):  # type: ignore[misc]  # as above
    """Asks which logs the partitions of these topics are."""

    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        """Name the topics."""
        self._topics = topics

    def build(self, request_struct_class: type[_Question]) -> _Question:
        """Write the request of the only version there is."""
        return request_struct_class([(NO_ID, topic, {}) for topic in self._topics], False, False, {})


def logs_in(answer: Any) -> dict[TopicPartition, Log]:
    """What an answer says of each partition. Raises a KafkaError when it says nothing of a topic."""
    logs: dict[TopicPartition, Log] = {}
    for error, topic, topic_id, _internal, partitions, *_more in answer.topics:
        if error:
            raise kafka.for_code(error)(topic)
        for _, number, _, epoch, *_ in partitions:
            logs[TopicPartition(topic, number)] = Log(None if topic_id == NO_ID else topic_id, epoch)
    return logs
