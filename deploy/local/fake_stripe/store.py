"""What the fake remembers for good, in one SQLite database beside its journal.

A start reads nothing of it, and little of it is held in memory: both are the same after a million orders as after ten. What is
written is gathered, so that what changes often is written once, and goes into the database in a transaction for many changes;
until then the journal has it. What has an end (keys, events) is deleted when it is over, and its room is used again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

_SCHEMA = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE account (name TEXT PRIMARY KEY, platform TEXT, settlement TEXT) WITHOUT ROWID",
    # Objects of every kind, in the order they were made; what they are listed by stands beside them.
    """CREATE TABLE thing (
        seq INTEGER PRIMARY KEY, account TEXT, kind TEXT, id TEXT, created INTEGER, body BLOB,
        customer TEXT, payment_intent TEXT, charge TEXT, source TEXT, type TEXT, currency TEXT
    )""",
    "CREATE UNIQUE INDEX thing_by_id ON thing (id)",
    "CREATE INDEX thing_in_order ON thing (account, kind, created, seq)",
    *(
        f"CREATE INDEX thing_by_{name} ON thing (account, kind, {name}, created, seq) WHERE {name} IS NOT NULL"
        for name in ("customer", "payment_intent", "charge", "source")
    ),
    "CREATE TABLE happened (seq INTEGER PRIMARY KEY, account TEXT, id TEXT, at INTEGER, body BLOB)",
    "CREATE UNIQUE INDEX happened_by_id ON happened (id)",
    "CREATE INDEX happened_in_order ON happened (account, at, seq)",
    "CREATE INDEX happened_at ON happened (at)",
    """CREATE TABLE owed (event TEXT, endpoint TEXT, account TEXT, PRIMARY KEY (event, endpoint)) WITHOUT ROWID""",
    "CREATE TABLE due (at INTEGER, account TEXT, kind TEXT, object TEXT)",
    "CREATE INDEX due_at ON due (at)",
    """CREATE TABLE stored (
        account TEXT, key TEXT, path TEXT, fingerprint TEXT, status INTEGER, request_id TEXT, stored_at INTEGER, body BLOB
    )""",
    "CREATE UNIQUE INDEX stored_by_key ON stored (account, key)",
    "CREATE INDEX stored_at ON stored (stored_at)",
)
_TABLES = ("meta", "account", "thing", "happened", "owed", "due", "stored")
_PRAGMAS = ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = OFF", "cache_size = -16384")


_SQL = (str, int, bytes, type(None))


class Store:
    """The database; only the process that holds the journal opens it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._database = sqlite3.connect(path, isolation_level=None, cached_statements=256)
        for pragma in _PRAGMAS:
            self._database.execute(f"PRAGMA {pragma}")
        if not self._database.execute("SELECT 1 FROM sqlite_master").fetchone():
            for statement in ("BEGIN", *_SCHEMA, "COMMIT"):
                self._database.execute(statement)
        self._gathered: dict[str, dict[Hashable, tuple[Any, ...]]] = {}

    def write(self, statement: str, key: Hashable, *values: Any) -> None:
        """Gather a row for a statement; the last word on a key counts. Dataclasses and dicts are kept as JSON."""
        self._gathered.setdefault(statement, {})[key] = values

    def gathered(self, statement: str) -> Mapping[Hashable, tuple[Any, ...]]:
        """Return what is not in the database yet."""
        return self._gathered.get(statement, {})

    def withdraw(self, statement: str, key: Hashable) -> bool:
        """Forget what was gathered under a key; False when it was not."""
        return self._gathered.get(statement, {}).pop(key, None) is not None

    def flush(self) -> None:
        """Hand all that was gathered to the operating system. Raises OSError when it does not take it; it stays gathered then."""
        if not self._gathered:
            return
        try:
            self._database.execute("BEGIN")
            for statement, rows in self._gathered.items():
                self._database.executemany(statement, [tuple(_sql(value) for value in row) for row in rows.values()])
            self._database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            message = f"what was gathered did not fit into {self._path}: {error}"
            raise OSError(message) from error
        self._gathered.clear()

    def read(self, statement: str, *values: Any) -> Iterable[tuple[Any, ...]]:
        """Read rows, one after the other, as far as somebody takes them."""
        self.flush()
        return self._database.execute(statement, values)

    def first(self, statement: str, *values: Any) -> tuple[Any, ...] | None:
        """Read one row of what is in the database, if there is one."""
        found: tuple[Any, ...] | None = self._database.execute(statement, values).fetchone()
        return found

    def delete(self, statement: str, *values: Any) -> None:
        """Delete something at once. Raises OSError when the disk does not take it."""
        self.flush()
        try:
            self._database.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise OSError(f"{self._path}: {error}") from error

    def clear(self) -> None:
        """Forget everything."""
        self._gathered.clear()
        for statement in ("BEGIN", *(f"DELETE FROM {table}" for table in _TABLES), "COMMIT"):  # noqa: S608 - names of our own
            self._database.execute(statement)

    def close(self) -> None:
        """Have everything in one file."""
        self._database.close()


def _sql(value: Any) -> Any:
    return value if isinstance(value, _SQL) else orjson.dumps(value)
