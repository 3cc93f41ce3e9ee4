"""Files that only whoever has the key can read, written and read piece by piece: memory does not grow with the file.

Each file has a data key of its own, wrapped by the backup key (`libs/common/sealing.py`), and is sealed a piece at a time with
AES-256-GCM. A piece is bound to the file's name, to its head, to its number and to whether it is the last: files that were
swapped, and pieces that were left out, doubled or cut off at the end, do not open (the STREAM construction).
"""

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from io import RawIOBase
from pathlib import Path
from typing import IO, Final

from deploy.backup.errors import BackupError
from libs.common.sealing import DataKey, Envelope, MasterKeys, SealError

PIECE_BYTES: Final = 1 << 20
_MAGIC: Final = b"cartwright sealed 1\n"
_LONGEST_HEAD: Final = 4096
_LONGEST_PIECE: Final = PIECE_BYTES + 1024
_LENGTH_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Vault:
    """A folder of sealed files, and the keys to it."""

    folder: Path
    keys: MasterKeys

    def seal(self, name: str, source: Iterable[bytes], at: datetime) -> int:
        """Store what comes under this name, whole or not at all; answers how many bytes it takes. `at` is when it was so."""
        file = self.folder / name
        _made(file.parent, self.folder)
        draft = file.with_name(f"{file.name}.new")
        draft.unlink(missing_ok=True)
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                self._write(out, name, source, at)
                out.flush()
                os.fsync(out.fileno())
                size = out.tell()
            draft.replace(file)
        except OSError as error:
            raise BackupError(f"{file} cannot be written ({error.strerror})") from error
        finally:
            draft.unlink(missing_ok=True)
        _settle(file.parent)
        return size

    def opened(self, name: str) -> Iterator[bytes]:
        """What was stored under a name, piece by piece. Raises BackupError where it is not whole, or not to be opened."""
        with self._file(name) as source:
            key, head, _ = self._head(source, name)
            yield from _inflated(_pieces(source, key, head), name)

    def at(self, name: str) -> datetime:
        """When what lies under a name was so. It is believed only once the file has been opened."""
        with self._file(name) as source:
            return self._head(source, name)[2]

    def write_json(self, name: str, told: object, at: datetime) -> None:
        """Store a few facts."""
        self.seal(name, [json.dumps(told).encode()], at)

    def read_json(self, name: str) -> dict[str, str]:
        """Facts that were stored."""
        told: dict[str, str] = json.loads(b"".join(self.opened(name)))
        return told

    def delete(self, name: str) -> None:
        """Forget it."""
        (self.folder / name).unlink(missing_ok=True)

    def _write(self, out: IO[bytes], name: str, source: Iterable[bytes], at: datetime) -> None:
        key, envelope = self.keys.new_data_key(name)
        told = {
            "at": at.isoformat(),
            "master_key_id": envelope.master_key_id,
            "wrapped_key": base64.b64encode(envelope.wrapped_key).decode(),
        }
        line = json.dumps(told).encode() + b"\n"
        out.write(_MAGIC + line)
        head, number, piece = _digest(line), 0, b""
        for following in _even(_deflated(source)):
            if number or piece:
                _put(out, key.seal_bytes(piece, _place(head, number, is_last=False)))
                number += 1
            piece = following
        _put(out, key.seal_bytes(piece, _place(head, number, is_last=True)))

    def _file(self, name: str) -> IO[bytes]:
        try:
            return (self.folder / name).open("rb")
        except OSError as error:
            raise BackupError(f"{self.folder / name} cannot be read ({error.strerror})") from error

    def _head(self, source: IO[bytes], name: str) -> tuple[DataKey, str, datetime]:
        magic, line = source.read(len(_MAGIC)), source.readline(_LONGEST_HEAD)
        try:
            told = json.loads(line) if magic == _MAGIC else {}
            envelope = Envelope(told["master_key_id"], base64.b64decode(told["wrapped_key"]))
            at = datetime.fromisoformat(told["at"])
        except (ValueError, KeyError, TypeError) as error:
            raise BackupError(f"{self.folder / name} is no sealed file") from error
        try:
            return self.keys.open(envelope, name), _digest(line), at
        except SealError as error:
            raise BackupError(f"the backup key does not open {self.folder / name}: {error}") from error


class Reading(RawIOBase):
    """Pieces as a file that is read from its beginning to its end."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        """Take them one after the other."""
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: object, /) -> int:
        """Give as much as there is of the piece at hand."""
        view = memoryview(buffer)  # type: ignore[arg-type]
        while not self._rest:
            following = next(self._pieces, None)
            if following is None:
                return 0
            self._rest = following
        given = self._rest[: len(view)]
        view[: len(given)] = given
        self._rest = self._rest[len(given) :]
        return len(given)


def file_pieces(source: IO[bytes]) -> Iterator[bytes]:
    """A file or a pipe, piece by piece."""
    while piece := source.read(PIECE_BYTES):
        yield piece


def _place(head: str, number: int, *, is_last: bool) -> str:
    return f"{head}/{number}/{'last' if is_last else 'more'}"


def _digest(head: bytes) -> str:
    return hashlib.sha256(head).hexdigest()


def _put(out: IO[bytes], sealed: bytes) -> None:
    out.write(len(sealed).to_bytes(_LENGTH_BYTES, "big") + sealed)


def _pieces(source: IO[bytes], key: DataKey, head: str) -> Iterator[bytes]:
    """Open piece after piece. What was cut off has no last one."""
    number, sealed = 0, _taken(source)
    while sealed is not None:
        following = _taken(source)
        try:
            yield key.open_bytes(sealed, _place(head, number, is_last=following is None))
        except SealError as error:
            raise BackupError(f"{source.name} is damaged: a piece of it is not what was sealed there") from error
        number, sealed = number + 1, following
    if not number:
        raise BackupError(f"{source.name} is damaged: nothing is in it")


def _taken(source: IO[bytes]) -> bytes | None:
    length = source.read(_LENGTH_BYTES)
    if not length:
        return None
    count = int.from_bytes(length, "big")
    sealed = source.read(count) if count <= _LONGEST_PIECE else b""
    if len(length) < _LENGTH_BYTES or len(sealed) < count or not count:
        raise BackupError(f"{source.name} is damaged: it ends within a piece")
    return sealed


def _deflated(source: Iterable[bytes]) -> Iterator[bytes]:
    """Much of a database's files, and of a log that was not filled, is zeros."""
    press = zlib.compressobj(level=1)
    for piece in source:
        yield press.compress(piece)
    yield press.flush()


def _inflated(pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    press = zlib.decompressobj()
    for piece in pieces:
        rest = piece
        while rest:
            plain = press.decompress(rest, PIECE_BYTES)
            rest = press.unconsumed_tail
            if plain:
                yield plain
    if not press.eof:
        raise BackupError(f"{name} is damaged: what was sealed has no end")


def _even(source: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of one size; the last may be smaller."""
    held = bytearray()
    for piece in source:
        held += piece
        while len(held) >= PIECE_BYTES:
            yield bytes(held[:PIECE_BYTES])
            del held[:PIECE_BYTES]
    if held:
        yield bytes(held)


def _made(folder: Path, top: Path) -> None:
    try:
        for each in reversed([folder, *folder.parents]):
            if each == top or top in each.parents:
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BackupError(f"{folder} cannot be made ({error.strerror})") from error


def _settle(folder: Path) -> None:
    """Have the disk know the new name."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
