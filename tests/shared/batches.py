"""Record batches made by hand, as no client would send them, and the way to a broker that asks nobody's opinion."""

import struct
from collections.abc import Callable, Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.util import calc_crc32c, encode_varint

Headers = Sequence[tuple[bytes, bytes]]
GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
NOW_MS = 1_790_000_000_000


def record(delta: int = 0, *, key: bytes = b"k", value: bytes = b"v", headers: Headers = (), blank: int = 0) -> bytes:
    """One record, `delta` after the first of its batch; with so many headers more that have no name and no content."""
    parts = [b"\0", _number(0), _number(delta), _sized(key), _sized(value), _number(len(headers) + blank)]
    body = b"".join([*parts, *(_sized(name) + _sized(content) for name, content in headers), b"\0\0" * blank])
    return _number(len(body)) + body


def batch(records: Sequence[bytes], codec: int = 0, pack: Callable[[bytes], bytes] = bytes) -> bytes:
    """A batch whose checksum is right, whatever else is not."""
    count = len(records)
    fields = struct.pack(">hiqqqhii", codec, count - 1, NOW_MS, NOW_MS, -1, -1, -1, count)
    covered = fields + pack(b"".join(records))
    return struct.pack(">qiibI", 0, len(covered) + 9, -1, 2, calc_crc32c(covered)) + covered


async def produce(bootstrap_servers: str, place: TopicPartition, made: bytes, **options: Any) -> int:
    """Have the broker take a batch; answers its number of an error, 0 for none."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap_servers, **options)
    await client.bootstrap()
    try:
        await client.set_topics([place.topic])
        request = ProduceRequest(None, -1, 10_000, [(place.topic, [(place.partition, made)])])
        answer = await client.send(client.cluster.leader_for_partition(place), request)
        [(_, [(_, error, *_)])] = answer.topics
        return int(error)
    finally:
        await client.close()


def _number(value: int) -> bytes:
    written = bytearray()
    encode_varint(value, written.append)
    return bytes(written)


def _sized(content: bytes) -> bytes:
    return _number(len(content)) + content
