"""A fetch's answer, looked through before aiokafka reads it: whole, unpacked within bounds, no more than there is room for.

aiokafka raises at a batch it cannot read, at the same place for ever, and what it had taken of other partitions by then is
lost. Here such a batch becomes a note in its own place, and everything after it is read.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.util import decode_varint

from libs.common.messaging.reading.notes import NoteRecord, Nothing, Unreadable, noted
from libs.common.messaging.reading.unpacking import UnpackError, unpacked

MAX_RECORDS: Final = 100_000
"""In one batch. One of ours has a kilobyte or two; what unpacks to more of them is made of next to nothing."""

MAX_HEADERS: Final = 1_000_000
LARGE_BYTES: Final = 1_048_576
"""What came through a broker as it is has few enough of everything."""

LENGTHS: Final = struct.Struct(">qi")
"""How a batch of any age begins: its offset, and how many bytes follow."""
MAGIC_AT: Final = 16
V2: Final = struct.Struct(">qiibIhiqqqhii")
V2_MAGIC: Final = 2
OVERHEAD: Final = {0: 26, 1: 34, V2_MAGIC: V2.size}
"""How many bytes a batch of this magic has at least."""
CODEC_BITS: Final = 7


class Batch:
    """One batch for aiokafka's loop, which asks for its transaction first, and then for its records.

    A record that breaks inside makes all of its batch a note: what was sent together was sent by the same publisher.
    """

    def __init__(self, batch: Any, magic: int, unusable: str | None = None) -> None:
        self._batch = batch
        self._unusable = unusable
        self.next_offset: int = batch.next_offset
        self.base_offset: int = batch.base_offset if magic == V2_MAGIC else self.next_offset - 1
        self.producer_id: int | None = batch.producer_id
        self.is_transactional: bool = batch.is_transactional
        self.is_control_batch: bool = batch.is_control_batch and unusable is None
        self._counts_from = self.base_offset if magic == V2_MAGIC else 0

    def validate_crc(self) -> bool:
        """It was."""
        return True

    def __next__(self) -> Any:
        """The first record of a control batch."""
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        if self._unusable is None:
            try:
                return iter(self._records())
            except Exception as error:  # noqa: BLE001 - whatever a parser finds to raise
                self._unusable = f"a record of it breaks: {type(error).__name__}: {error}"
        return iter([noted(Unreadable(self.base_offset, self.next_offset - 1, self._unusable))])

    def _records(self) -> Sequence[Any]:
        found = list(self._batch)
        last = self._counts_from - 1
        for record in found:
            if not last < record.offset < self.next_offset:
                raise ValueError(f"offset {record.offset} is not between {last} and {self.next_offset}")
            last = record.offset
        return found


class NoteBatch:
    """A note, as a batch of one record, in no transaction."""

    producer_id = None
    is_transactional = is_control_batch = False

    def __init__(self, note: NoteRecord) -> None:
        self._note = note
        self.base_offset = note.offset
        self.next_offset = note.offset + 1

    def __iter__(self) -> Iterator[NoteRecord]:
        return iter([self._note])

    def validate_crc(self) -> bool:
        """It never was on a wire."""
        return True


class Batches:
    """What aiokafka's `MemoryRecords` is, of batches that were looked through."""

    def __init__(self, batches: Sequence[Batch | NoteBatch]) -> None:
        self._left = list(reversed(batches))

    def has_next(self) -> bool:
        """Whether there is another batch."""
        return bool(self._left)

    def next_batch(self) -> Batch | NoteBatch:
        """The next batch."""
        return self._left.pop()

    def size_in_bytes(self) -> int:
        """Zero: nothing of it is too large to be read."""
        return 0


@dataclass(slots=True)
class Taken:
    """What was taken of an answer, and how much memory it takes."""

    batches: list[Batch | NoteBatch]
    size: int
    damage: str | None
    """What is wrong with the first batch, if not even its header can be believed: then nothing was taken."""


def taken(data: bytes, position: int, end: int, room: int) -> Taken:
    """The batches up to the first damaged one, as many as there is room for and at least one.

    A checksum does not cover a batch's offset: it must be where we are, and not beyond the partition's end.
    """
    found = Taken([], 0, None)
    for piece in pieces(data):
        try:
            batch, size = _batch(piece)
            if not position < batch.next_offset <= end:
                raise DamageError(f"it ends at {batch.next_offset}, which is not between {position} and {end}")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001 - whatever a parser finds to raise
            if not found.batches:
                found.damage = str(error) or type(error).__name__
            break
        found.batches.append(batch)
        position = batch.next_offset
        found.size += size
        if found.size >= room:
            break
    _note_the_end(found.batches)
    return found


def pieces(data: bytes) -> Iterator[memoryview]:
    """The batches one after the other; the first one whole or not, the last one only if it is whole."""
    view, at = memoryview(data), 0
    while len(data) - at >= LENGTHS.size:
        _, length = LENGTHS.unpack_from(data, at)
        end = at + LENGTHS.size + length
        if length < 0 or end > len(data):
            if at == 0 or length < 0:
                yield view[at:]
            return
        yield view[at:end]
        at = end


class DamageError(ValueError):
    """A batch of which not even its header can be believed."""


def checked(piece: memoryview) -> tuple[Any, int]:
    """A batch as it lies there, with its magic. Raises DamageError unless its header is whole and its checksum right."""
    offset, length = LENGTHS.unpack_from(piece)
    if length != len(piece) - LENGTHS.size or len(piece) <= MAGIC_AT:
        raise DamageError(f"a batch of {length} bytes is not there")
    magic = piece[MAGIC_AT]
    if len(piece) < OVERHEAD.get(magic, len(piece) + 1):
        raise DamageError(f"magic {magic} with {length} bytes is no batch")
    batch = DefaultRecordBatch(piece) if magic == V2_MAGIC else LegacyRecordBatch(piece, magic)
    if not batch.validate_crc() or batch.next_offset <= offset:
        raise DamageError("its checksum is wrong")
    return batch, magic


def _batch(piece: memoryview) -> tuple[Batch, int]:
    """A batch with its records unpacked, or said to be unusable; and how much memory it takes."""
    batch, magic = checked(piece)
    try:
        if magic == V2_MAGIC:
            return _modern(piece, batch)
        size = _size_of_legacy(piece, magic)
    except (UnpackError, struct.error) as error:
        return Batch(batch, magic, str(error)), len(piece)
    return Batch(batch, magic), size


def _modern(piece: memoryview, batch: Any) -> tuple[Batch, int]:
    header = list(V2.unpack_from(piece))
    attributes, count = header[5], header[-1]
    if not 0 <= count <= MAX_RECORDS:
        raise UnpackError(f"{count} records in one batch")
    codec = attributes & CODEC_BITS
    if codec == 0:
        return Batch(batch, V2_MAGIC), len(piece)
    records = unpacked(codec, piece[V2.size :])
    if len(records) > LARGE_BYTES:
        _demand_few_headers(records, count)
    header[1] = V2.size - LENGTHS.size + len(records)
    header[5] = attributes & ~CODEC_BITS
    plain = V2.pack(*header) + records
    return Batch(DefaultRecordBatch(plain), V2_MAGIC), len(plain)


def _demand_few_headers(records: bytes, count: int) -> None:
    """Two bytes of a header become a hundred of Python's: what is unpacked may be made of nothing else."""
    at = headers = 0
    for _ in range(count):
        length, at = decode_varint(records, at)
        end = at + length
        for _ in "attributes", "time", "offset":
            _, at = decode_varint(records, at)
        for _ in "key", "value":
            size, at = decode_varint(records, at)
            at += max(size, 0)
        more, _ = decode_varint(records, at)
        headers += more
        at = end
        if headers > MAX_HEADERS or length <= 0 or more < 0:
            raise UnpackError(f"more than {MAX_HEADERS} headers in one batch")


def _size_of_legacy(piece: memoryview, magic: int) -> int:
    """What a batch of before Kafka 0.11 unpacks to. aiokafka unpacks it once more; there are few left."""
    at = OVERHEAD[magic] - 8
    codec = piece[MAGIC_AT + 1] & CODEC_BITS
    if codec == 0:
        return len(piece)
    (key_size,) = struct.unpack_from(">i", piece, at)
    at += 4 + max(key_size, 0)
    (size,) = struct.unpack_from(">i", piece, at)
    return len(unpacked(codec, piece[at + 4 : at + 4 + max(size, 0)]))


def _note_the_end(batches: list[Batch | NoteBatch]) -> None:
    """An answer that ends with nothing to read says so in a record, or nobody would hear how far the partition has come.

    The marker of a transaction's end that is the last batch has nothing left to do: no batch follows that it could end.
    """
    if batches and batches[-1].is_control_batch:
        batches[-1] = NoteBatch(noted(Nothing(batches[-1].next_offset - 1)))
