"""What our reading says in a partition's own order, in the place of records: this could not be read, here was nothing.

A note travels as a record whose key nobody outside this process can know, so that nobody can write one.
"""

import secrets
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

import orjson

UNREADABLE: Final = "unreadable-batch"
"""The reason under which such a batch is set aside."""

_MARK: Final = b"cartwright-note:" + secrets.token_bytes(16)
_MARK_BYTES: Final = len(_MARK)


class _Keyed(Protocol):
    @property
    def key(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Unreadable:
    """These offsets hold something that nobody can use."""

    first: int
    last: int
    why: str

    @property
    def detail(self) -> str:
        """What an operator is told."""
        return f"offsets {self.first} to {self.last}: {self.why}"


@dataclass(frozen=True, slots=True)
class Nothing:
    """Up to this offset there is nothing to read: an end of a transaction, or what compaction left."""

    last: int


Note = Unreadable | Nothing


@dataclass(frozen=True, slots=True)
class NoteRecord:
    """A note as the record that aiokafka takes it for."""

    offset: int
    key: bytes
    value: bytes
    timestamp: int = -1
    timestamp_type: int = 0
    checksum: int | None = None
    headers: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where something lies of which there is nothing to show."""

    topic: str
    partition: int
    offset: int
    key: None = None
    value: None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def noted(note: Note) -> NoteRecord:
    """The record that carries a note, in the place of the last one of its offsets."""
    return NoteRecord(note.last, _MARK, orjson.dumps({type(note).__name__: asdict(note)}))


def note_of(record: _Keyed) -> Note | None:
    """The note that a record carries; None for a record of somebody's."""
    key = record.key
    if key is None or len(key) != _MARK_BYTES or key != _MARK:
        return None
    [(kind, fields)] = orjson.loads(record.value or b"").items()
    return Unreadable(**fields) if kind == Unreadable.__name__ else Nothing(**fields)
