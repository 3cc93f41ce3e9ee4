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

from libs.common.database.passing import ConcurrencyError
from libs.common.database.wire import Connection, fetch
from libs.common.errors import ConflictError

MOVED = "cartwright: of these rows only"
"""How the server's error begins when a row had moved."""

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


async def select(connection: Connection, selects: Sequence[Select], *, ends: bool = False) -> list[Sequence[Sequence[Any]]]:
    """The rows of each, in one round trip. If the transaction `ends` with it, so does COMMIT, and nothing may follow."""
    if len(selects) < 2:
        return [
            await fetch(connection, f"SELECT {columns} {rest}", *arguments, ends=ends) for columns, rest, arguments in selects
        ]
    found: list[list[Sequence[Any]]] = [[] for _ in selects]
    sql = _selected(*((each.columns, each.rest) for each in selects))
    for place, row in await fetch(connection, sql, *_arguments(selects), ends=ends):
        found[place].append(row)
    return [*found]


async def write(connection: Connection, writes: Sequence[Write], *, ends: bool = False) -> None:
    """Carry them all out in one round trip. If the transaction `ends` with them, COMMIT is in it, and nothing may follow.

    Raises ConcurrencyError when one concerns fewer rows than it must, or makes one that somebody has just made; and
    ConflictError when a constraint of uniqueness other than the key forbids it: the constraint's name, without its table's, is
    the error's code.
    """
    if not writes:
        return
    try:
        if len(writes) == 1 and writes[0].expected is None:
            await fetch(connection, writes[0].sql, *writes[0].arguments, ends=ends)
        else:
            expected = [each.expected for each in writes if each.expected is not None]
            sql = _written(*((each.sql, each.expected is not None) for each in writes))
            await fetch(connection, sql, *_arguments(writes), *([expected] if expected else []), ends=ends)
    except (asyncpg.UniqueViolationError, asyncpg.ExclusionViolationError) as error:
        raise _refused(error) from error
    except asyncpg.InvalidTextRepresentationError as error:
        if MOVED not in str(error):
            raise
        raise ConcurrencyError(f"rows were not there as they had been read: {error}") from error


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
    """One statement that carries out all of them, and fails unless those that are counted concern as many rows as they must.

    It has to fail by itself, for COMMIT may be behind it. It does so, with the numbers in its message, by taking a text for
    an integer: PostgreSQL has no other way in plain SQL.
    """
    renumbered = [*_renumbered([f"{sql} RETURNING true" if is_counted else sql for sql, is_counted in parts])]
    carried_out = f"WITH {', '.join(f'w{place} AS ({sql})' for place, sql in renumbered)}"
    counts = ", ".join(f"(SELECT count(*) FROM w{place})" for place, (_, is_counted) in enumerate(parts) if is_counted)  # noqa: S608 - as above
    if not counts:
        return f"{carried_out} SELECT"
    expected = sum(max(map(int, _PLACEHOLDER.findall(sql)), default=0) for sql, _ in parts) + 1
    return (
        f"{carried_out} SELECT ('{MOVED} ' || counts::text)::integer FROM (SELECT ARRAY[{counts}]) AS found(counts)"  # noqa: S608 - as above
        f" WHERE counts <> ${expected}::bigint[]"
    )


def _renumbered(statements: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The statements with their places, and with placeholders that are counted on from one to the next."""
    used = 0
    for place, sql in enumerate(statements):
        yield place, _PLACEHOLDER.sub(lambda match, before=used: f"${int(match[1]) + before}", sql)  # type: ignore[misc]
        used += max(map(int, _PLACEHOLDER.findall(sql)))


def _arguments(parts: Sequence[Select] | Sequence[Write]) -> Iterator[Any]:
    return chain.from_iterable(each.arguments for each in parts)
