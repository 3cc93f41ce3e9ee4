"""What the fake did last, on disk: one line per state change, handed to the operating system before the answer leaves.

A line is a JSON record and, after a tab, the answer that was given, if it is to be given again. It is kept until the database
(`store.py`) has what it says, so a start reads few of them.

No fsync: a line written survives the death of this process, which is what a test or a laptop asks of a fake. What a
torn last line recorded was never answered, so it is dropped at the next start.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson


class JournalError(Exception):
    """The state file cannot be used; the message says what to do."""


class Journal:
    """An append-only file held by one process at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _open_alone(path)
        self._size = os.fstat(self._file).st_size

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that the database might lack."""
        return not self._size

    def read(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Yield every record from the first with the answer behind it; drop a torn tail."""
        size = 0
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    os.ftruncate(self._file, size)
                    break
                record, _, body = line[:-1].partition(b"\t")
                yield self._decoded(record, number), body
                size += len(line)
        self._size = size

    def append(self, record: bytes, body: bytes) -> None:
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
        self._size += written

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
