"""Where a damaged batch ends, when its own header cannot be asked: at the next one that Kafka gives for a later offset."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka import errors as kafka
from aiokafka.protocol.fetch import FetchRequest

from libs.common.messaging.reading.batches import LENGTHS, MAGIC_AT, OVERHEAD, checked, pieces

PEEK_BYTES: Final = 4_096
"""Kafka gives one batch at least, however little is asked for."""
CORRUPT: Final = 2
"""Kafka's own word that it cannot read its log."""

COMMITTED: Final = 1

Ask = Callable[[Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Rest:
    """What comes after the damage: where, and the batch itself where Kafka gives it only to who asks for a later offset."""

    offset: int
    batch: bytes = b""


async def rest_after(ask: Ask, place: TopicPartition, position: int, end: int, answered: bytes) -> Rest:
    """What comes after the damage at `position`; the end of the partition when nothing of it can be read any more.

    Raises a KafkaError when the broker cannot be asked: that says nothing about its log.
    """
    if near := _behind(answered, position, end):
        return near
    damaged, step = position, 1
    while damaged + 1 < end:
        offset = min(damaged + step, end - 1)
        if found := await _beyond(ask, place, position, offset, end):
            return await _first_beyond(ask, place, position, damaged, offset, found, end)
        damaged, step = offset, step * 2
    return Rest(end)


async def _first_beyond(
    ask: Ask, place: TopicPartition, position: int, damaged: int, beyond: int, found: bytes, end: int
) -> Rest:
    """Search between an offset for which no other batch is given and one for which this is."""
    while beyond - damaged > 1:
        middle = (damaged + beyond) // 2
        if nearer := await _beyond(ask, place, position, middle, end):
            beyond, found = middle, nearer
        else:
            damaged = middle
    base: int = LENGTHS.unpack_from(found)[0]
    if base >= beyond:
        return Rest(base)
    # Kafka finds the batch from its end alone: asked for its beginning, it stumbles over what lies before.
    batch = _first_whole(found)
    return Rest(base, batch) if batch else Rest(beyond)


async def _beyond(ask: Ask, place: TopicPartition, position: int, offset: int, end: int) -> bytes | None:
    """What Kafka gives for this offset, if that begins with another batch than lies at `position`."""
    error, data = await asked(ask, place, offset)
    return None if error else _sensible(data, position, end)


async def asked(ask: Ask, place: TopicPartition, offset: int) -> tuple[int, bytes]:
    """Ask for this offset of this partition alone: either Kafka says that it cannot read, or what it reads."""
    wanted = [(place.topic, [(place.partition, offset, PEEK_BYTES)])]
    answer = await ask(FetchRequest(0, 1, PEEK_BYTES, COMMITTED, wanted))
    [(_, [(_, error, *_, data)])] = answer.topics
    if error not in {0, CORRUPT}:
        raise kafka.for_code(error)(place)
    return error, data or b""


def _sensible(data: bytes, position: int, end: int) -> bytes | None:
    """The data, if the header of its first batch makes sense; whether the rest of it does is asked when it is its turn."""
    if len(data) <= MAGIC_AT:
        return None
    base, length = LENGTHS.unpack_from(data)
    magic = data[MAGIC_AT]
    is_sound = magic in OVERHEAD and OVERHEAD[magic] <= LENGTHS.size + length <= len(data)
    return data if is_sound and position < base < end else None


def _first_whole(data: bytes) -> bytes | None:
    """The first batch, if it is all right, and in no transaction: nobody said whether that was aborted."""
    piece = next(pieces(data))
    try:
        batch, _ = checked(piece)
    except Exception:  # noqa: BLE001 - then it is not
        return None
    return None if batch.is_transactional else bytes(piece)


def _behind(answered: bytes, position: int, end: int) -> Rest | None:
    """What lies behind the damaged batch in the answer itself, as far as that is whole.

    One with a wrong offset is given again and again, for each of those that follow it, with all of them behind it.
    """
    for piece in list(pieces(answered))[1:]:
        batch = _first_whole(bytes(piece))
        base: int = LENGTHS.unpack_from(piece)[0]
        if batch is None or base >= end:
            return None
        if base >= position:
            return Rest(base, batch if base == position else b"")  # else it is fetched, with what is aborted from there on
    return None
