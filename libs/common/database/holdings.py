"""What a service keeps of a tenant, told by its tables: what is taken away of it, in which order, and what is deleted in the end.

Both walk the described tables, so a new one is in them by itself; and both read with the same statements, so that what was
deleted can be held against what was taken away.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any
from uuid import UUID

from sqlalchemy import LargeBinary, MetaData, Table

from libs.common.database.wire import Connection

PAGE = 500
TENANT = "tenant"
STANDING = frozenset(
    {
        *("status", "version", "sequence", "tenant_version", "told_version", "acknowledged"),
        *("settled_by", "erased_by", "erased_at", "export_sha256"),
    }
)
"""Of a tenant's own row: how far it has come. It changes while the tenant leaves, and is none of what it leaves behind."""


@dataclass(frozen=True, slots=True)
class Part:
    """One table as it is taken away."""

    table: str
    keys: Sequence[str]
    """Its primary key, without the tenant."""
    withheld: Sequence[str]

    def statement(self, *, goes_on: bool) -> str:
        """One page, from where the last one ended: the keys of each row, and the row as JSON."""
        keys = ", ".join(self.keys)
        later = f"AND ({keys}) > ({', '.join(f'${number + 4}' for number in range(len(self.keys)))})" if goes_on else ""
        order = f"ORDER BY {keys} LIMIT $3" if self.keys else "LIMIT $3"
        row = f"(to_jsonb({self.table}) - $2::text[])::text"
        columns = ", ".join([*self.keys, f"{row} AS exported"])
        return f"SELECT {columns} FROM {self.table} WHERE tenant_id = $1 {later} {order}"  # noqa: S608 - our own names


@dataclass(frozen=True, slots=True)
class UnderWay:
    """Rows that something is still to become of. While a tenant has one of them, it is not erased."""

    table: str
    condition: str
    """SQL, of a row."""


def in_state(states: Iterable[StrEnum]) -> str:
    """The condition that a row is in one of these."""
    named = ", ".join(sorted(f"'{state}'" for state in states))
    return f"state IN ({named})"


def but(states: Iterable[StrEnum]) -> str:
    """The condition that a row is in none of these."""
    return f"NOT {in_state(states)}"


@dataclass(frozen=True, kw_only=True)
class Holdings:
    """What one service keeps of tenants."""

    metadata: MetaData
    withheld: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By table, the columns that never leave: what proves who somebody is, what seals it, and what moves by the clock."""
    left_out: Sequence[str] = ()
    """Tables that nobody has anything of, or that go on by the clock."""
    under_way: Sequence[UnderWay] = ()
    tombstone: str | None = None
    """The table whose row of an erased tenant stays, with nothing in it."""

    @cached_property
    def parts(self) -> Sequence[Part]:
        """Every table that has a tenant, but those left out; of each what may be seen."""
        return [
            Part(str(table.name), _keys(table), [*self.withheld.get(table.name, ()), *_never(table)])
            for table in self._of_tenants
            if table.name not in self.left_out
        ]

    @cached_property
    def erased(self) -> Sequence[str]:
        """The tables that are emptied of a tenant, each before those that it refers to; its own row goes last of all."""
        names = [str(table.name) for table in reversed(self._of_tenants) if table.name != self.tombstone]
        return sorted(names, key=lambda name: name == TENANT)

    @property
    def _of_tenants(self) -> Sequence[Table]:
        return [table for table in self.metadata.sorted_tables if "tenant_id" in table.c]


Transaction = Callable[[], AbstractAsyncContextManager[Connection]]


async def pages(begin: Transaction, tenant_id: UUID, parts: Sequence[Part]) -> AsyncIterator[tuple[Part, int, bytes]]:
    """Page by page: its part, how many rows it has, and their lines. No transaction is open while its reader takes its time."""
    for part in parts:
        after: Sequence[Any] | None = None
        while True:
            async with begin() as connection:
                statement = part.statement(goes_on=after is not None)
                rows = await connection.fetch(statement, tenant_id, part.withheld, PAGE, *(after or ()))
            if rows or after is None:
                name = part.table.encode()
                lines = b"".join(b'{"table":"%b","row":%b}\n' % (name, row["exported"].encode()) for row in rows)
                yield part, len(rows), lines
            if len(rows) < PAGE or not part.keys:
                break
            after = [rows[-1][key] for key in part.keys]


def _keys(table: Table) -> list[str]:
    return [str(column.name) for column in table.primary_key.columns if column.name != "tenant_id"]


def _never(table: Table) -> list[str]:
    """Nobody keeps bytes here that are not sealed, or a digest of what proves somebody."""
    standing = STANDING if table.name == TENANT else frozenset()
    return [str(each.name) for each in table.columns if isinstance(each.type, LargeBinary) or each.name in standing]
