"""In which order the messages of a batch are decided, and which of them were seen before.

Our own relays keep a key's order, so its messages are decided as they lie in the partition. Other publishers may not, so
theirs are decided by their sequence, together with those of the key that wait for a gap to close.
"""

from collections.abc import Callable, Mapping, Sequence

import orjson
from aiokafka import TopicPartition

from libs.common.messaging.attributes import Position
from libs.common.messaging.envelope import Invalid, KafkaRecord, Received
from libs.common.messaging.parked import Parked
from libs.common.telemetry import Counter

DUPLICATES = Counter("cartwright_inbox_duplicates_total", "Messages seen before, dropped", ["topic"])

Found = tuple[KafkaRecord, Received | Invalid | None]
Read = Mapping[TopicPartition, Sequence[Found]]
"""Records as they lie in their partitions, and what was read in them."""
Marks = dict[TopicPartition, dict[str, Position]]
Key = tuple[str, bytes]

NEVER: Position = (-1, -1, -1)


def partition_of(record: KafkaRecord) -> TopicPartition:
    """Where a record lies."""
    return TopicPartition(record.topic, record.partition)


def key_of(found: Received | Parked) -> Key:
    """What must stay in order."""
    return found.record.topic, found.record.key or b""


def above_watermark(received: Mapping[TopicPartition, Sequence[Received]], marks: Marks) -> list[Received]:
    """Those above the watermark of their partition and origin, which rises past them."""
    fresh = []
    for partition, run in received.items():
        seen = marks[partition]
        for found in run:
            if found.position is not None:
                if found.position <= seen.get(found.origin, NEVER):
                    DUPLICATES.labels(partition.topic).inc()
                    continue
                seen[found.origin] = found.position
            fresh.append(found)
    return fresh


def marks_in(stored: str) -> dict[str, Position]:
    """Watermarks as they are stored."""
    return {origin: (timeline, window, ordinal) for origin, (timeline, window, ordinal) in orjson.loads(stored).items()}


def unseen(fresh: Sequence[Received], deltas: Sequence[Received], new: set[tuple[str, str]]) -> list[Received]:
    """All but the deltas whose id is not new, each id once."""
    concerned = {id(found) for found in deltas}
    kept = []
    for found in fresh:
        identity = (found.message.source, found.message.id)
        if id(found) not in concerned:
            kept.append(found)
        elif identity in new:
            new.discard(identity)
            kept.append(found)
        else:
            DUPLICATES.labels(found.record.topic).inc()
    return kept


def in_order(
    fresh: Sequence[Received], waiting: Sequence[Parked], is_delta: Callable[[Received | Parked], bool]
) -> list[Received | Parked]:
    """Our own messages as they came; foreign ones by the sequence of their key, with those that wait for a gap.

    Of a key, what is absolute goes first: it knows better than any delta with a lower sequence, and settles a gap.
    """
    if not waiting and all(found.position is not None for found in fresh):
        return [*fresh]
    foreign: dict[Key, list[Received | Parked]] = {}
    for parked in waiting:
        foreign.setdefault(key_of(parked), []).append(parked)
    for found in fresh:
        if found.position is None:
            foreign.setdefault(key_of(found), []).append(found)
    ordered: list[Received | Parked] = []
    for found in fresh:
        if found.position is not None:
            ordered.append(found)
        else:
            ordered.extend(sorted(foreign.pop(key_of(found), []), key=lambda each: (is_delta(each), each.message.sequence)))
    return ordered
