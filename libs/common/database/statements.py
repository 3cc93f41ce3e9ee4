"""Statements: what SQLAlchemy compiles once, and several that go to the server together.

A round trip costs both sides more than most of the statements in it. So what a transaction looks up or changes at the same
moment is one statement, put together once for each combination of parts; the server keeps its plan.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy import Executable
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from libs.common.database.connections import Connection
from libs.common.database.passing import ConcurrencyError
from libs.common.errors import ConflictError

_PLACEHOLDER = re.compile(r"\$(\d+)")

DIALECT = PGDialect_asyncpg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]


class Statement:
    """A SQLAlchemy statement, compiled once; called with its parameters by name."""

    def __init__(self, query: Executable) -> None:
        compiled = query.compile(dialect=DIALECT)  # type: ignore[attr-defined]
        self.sql: str = compiled.string
        self._names: Sequence[str] = compiled.positiontup or ()
        self._constants: Mapping[str, Any] = {name: value for name, value in compiled.params.items() if value is not None}

    def arguments(self, parameters: Mapping[str, Any]) -> list[Any]:
        """The parameters in the order of the placeholders."""
        return [parameters[name] if name in parameters else self._constants[name] for name in self._names]

    async def fetch(self, connection: Connection, **parameters: Any) -> list[asyncpg.Record]:
        """Run it; every row."""
        records: list[asyncpg.Record] = await connection.fetch(self.sql, *self.arguments(parameters))
        return records

    async def fetchrow(self, connection: Connection, **parameters: Any) -> asyncpg.Record | None:
        """Run it; the first row, if any."""
        return await connection.fetchrow(self.sql, *self.arguments(parameters))


class Select(NamedTuple):
    """Columns of some rows: what stands behind SELECT, what follows it from FROM on, and its arguments."""

    columns: str
    rest: str
    arguments: Sequence[Any]


class Write(NamedTuple):
    """An INSERT or UPDATE with its arguments."""

    sql: str
    arguments: Sequence[Any]
    expected: int | None = None
    """How many rows it must concern. None: however many."""


async def select(connection: Connection, selects: Sequence[Select]) -> list[Sequence[Sequence[Any]]]:
    """The rows of each, in one round trip."""
    if len(selects) < 2:
        return [await connection.fetch(f"SELECT {columns} {rest}", *arguments) for columns, rest, arguments in selects]
    found: list[list[Sequence[Any]]] = [[] for _ in selects]
    sql = _selected(*((each.columns, each.rest) for each in selects))
    for place, row in await connection.fetch(sql, *_arguments(selects)):
        found[place].append(row)
    return [*found]


async def write(connection: Connection, writes: Sequence[Write]) -> None:
    """Carry them all out in one round trip.

    Raises ConcurrencyError when one concerns fewer rows than it must, or makes one that somebody has just made; and
    ConflictError when a constraint of uniqueness other than the key forbids it: the constraint's name, without its table's, is
    the error's code.
    """
    if not writes:
        return
    counted = [each for each in writes if each.expected is not None]
    try:
        if len(writes) == 1:
            status = await connection.execute(writes[0].sql, *writes[0].arguments)
            counts: Sequence[int] = [int(status.rpartition(" ")[2])] if counted else []
        else:
            sql = _written(*((each.sql, each.expected is not None) for each in writes))
            [counts] = await connection.fetch(sql, *_arguments(writes))
    except (asyncpg.UniqueViolationError, asyncpg.ExclusionViolationError) as error:
        raise _refused(error) from error
    for each, count in zip(counted, counts, strict=True):
        if count != each.expected:
            raise ConcurrencyError(f"{count} rows and not {each.expected} were there for {each.sql[:60]}…")


def _refused(error: asyncpg.UniqueViolationError | asyncpg.ExclusionViolationError) -> ConcurrencyError | ConflictError:
    table, name = str(error.table_name), str(error.constraint_name)
    if name == f"{table}_pkey":
        return ConcurrencyError(str(error))
    code = name.removeprefix(f"{table}_").replace("_", "-")
    return ConflictError(code, f"this {table} cannot be: {code.replace('-', ' ')}")


@cache
def _selected(*parts: tuple[str, str]) -> str:
    """Rows of every shape, each with the place of its part. The server goes through the parts in their order."""
    renumbered = _renumbered([f"ROW({columns}) AS found {rest}" for columns, rest in parts])
    return " UNION ALL ".join(f"SELECT * FROM (SELECT {place} AS place, {part}) AS s{place}" for place, part in renumbered)  # noqa: S608 - statements of our own only


@cache
def _written(*parts: tuple[str, bool]) -> str:
    """One statement that carries out all of them, and answers how many rows those concerned that are counted."""
    renumbered = _renumbered([f"{sql} RETURNING true" if is_counted else sql for sql, is_counted in parts])
    counts = ", ".join(f"(SELECT count(*) FROM w{place})" for place, (_, is_counted) in enumerate(parts) if is_counted)  # noqa: S608 - as above
    return f"WITH {', '.join(f'w{place} AS ({sql})' for place, sql in renumbered)} SELECT {counts}"


def _renumbered(statements: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The statements with their places, and with placeholders that are counted on from one to the next."""
    used = 0
    for place, sql in enumerate(statements):
        yield place, _PLACEHOLDER.sub(lambda match, before=used: f"${int(match[1]) + before}", sql)  # type: ignore[misc]
        used += max(map(int, _PLACEHOLDER.findall(sql)))


def _arguments(parts: Sequence[Select] | Sequence[Write]) -> Iterator[Any]:
    return chain.from_iterable(each.arguments for each in parts)
