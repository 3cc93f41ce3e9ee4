"""The fake's memory on disk: one line per state change, handed to the operating system before the answer leaves.

A line is a JSON record and, after a tab, the answer that was given, if it is to be given again. Records are read at a
start; an answer is read from its place there when a key is replayed.

No fsync: a line written survives the death of this process, which is what a test or a laptop asks of a fake. What a
torn last line recorded was never answered, so it is dropped at the next start.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from deploy.local.fake_stripe.idempotency import Extent


class JournalError(Exception):
    """The state file cannot be used; the message says what to do."""


class Journal:
    """An append-only file held by one process at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _open_alone(path)
        self._size = os.fstat(self._file).st_size

    def read(self) -> Iterator[tuple[dict[str, Any], Extent]]:
        """Yield every record from the first with the extent of its body; drop a torn tail."""
        size = 0
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    os.ftruncate(self._file, size)
                    break
                record, _, body = line.partition(b"\t")
                yield self._decoded(record, number), Extent(size + len(record) + 1, max(0, len(body) - 1))
                size += len(line)
        self._size = size

    def append(self, record: bytes, body: bytes) -> Extent:
        """Add one line; all of it or, when the disk refuses, none of it."""
        line = b"%b\t%b\n" % (record, body)
        try:
            written = os.write(self._file, line)
        except OSError:
            written = 0
        if written != len(line):
            os.ftruncate(self._file, self._size)
            message = f"{len(line)} bytes did not fit into {self._path}"
            raise OSError(message)
        extent = Extent(self._size + len(record) + 1, len(body))
        self._size += written
        return extent

    def body(self, extent: Extent) -> bytes:
        """Read a body that was appended."""
        return os.pread(self._file, extent.length, extent.offset)

    def rewrite(self, lines: Iterable[tuple[bytes, bytes]]) -> None:
        """Replace the file by `lines`, so that what they supersede takes no room; extents change, so read again."""
        fresh = self._path.with_suffix(self._path.suffix + ".new")
        with fresh.open("wb") as file:
            file.writelines(b"%b\t%b\n" % line for line in lines)
        fresh.replace(self._path)
        replacement = _open_alone(self._path)
        os.close(self._file)
        self._file = replacement

    def clear(self) -> None:
        """Forget everything."""
        os.ftruncate(self._file, 0)
        self._size = 0

    def close(self) -> None:
        """Let another process have the file."""
        os.close(self._file)

    def _decoded(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record: dict[str, Any] = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            message = f"line {number} of {self._path} is damaged; move the file away to start empty"
            raise JournalError(message) from error
        return record


def _open_alone(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        message = f"{path} is in use by another fake Stripe; stop that one or choose another --state"
        raise JournalError(message) from error
    return file
