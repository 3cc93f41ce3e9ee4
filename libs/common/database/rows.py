"""Aggregates in their tables: loaded and saved by the batch, any number of one kind with one statement."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property, partial
from itertools import count, islice
from operator import attrgetter, itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, get_type_hints
from uuid import UUID

import orjson
import structlog
from sqlalchemy import Table
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.database.statements import DIALECT, Select, Write, select, write
from libs.common.database.wire import Connection
from libs.common.decision import Aggregate, Unreadable, shape_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter

REPAIR = "somebody wrote this row by hand, or an older program did: put it right; only what needs it fails"

log = structlog.get_logger(__name__)


A = TypeVar("A", bound=Aggregate)


class Rows(Generic[A]):
    """Loads and saves aggregates of one kind, any number with one statement. Columns and fields have the same names."""

    LEFT_OUT: ClassVar[frozenset[str]] = frozenset()
    """Fields with a default that the table has no column for."""

    def __init__(self, table: Table, kind: type[A], *, lenient: Collection[str] = ()) -> None:
        """`lenient`: mappings of which what cannot be read is left out, for it can be done without."""
        self.table = table
        self.kind = kind
        self._lenient = lenient
        shape = shape_of(kind)
        self._names = [name for name in shape.names if name not in self.LEFT_OUT]
        self._values: Callable[[A], tuple[Any, ...]] = attrgetter(*self._names)
        self._by_name: Callable[[Mapping[str, Any]], tuple[Any, ...]] = itemgetter(*self._names)
        self._made = self._made_with_defaults if self.LEFT_OUT else shape.made
        missing = set(self._names) ^ {column.name for column in table.columns}
        if missing:
            message = f"{kind.__name__} and table {table.name} differ in {sorted(missing)}"
            raise TypeError(message)
        self._decoders, self._encoders = self._converters()

    def _converters(self) -> tuple[dict[int, Callable[[Any], Any]], dict[int, Callable[[Any], Any]]]:
        """By the place of the field: what reads a stored value, and what writes one."""
        from pydantic import TypeAdapter  # only here, and only once a process

        hints = get_type_hints(self.kind)
        decoders: dict[int, Callable[[Any], Any]] = {}
        encoders: dict[int, Callable[[Any], Any]] = {}
        for index, name in enumerate(self._names):
            if isinstance(self.table.columns[name].type, JSONB):
                adapter: TypeAdapter[Any] = TypeAdapter(hints[name])
                decoders[index] = partial(_readable, adapter) if name in self._lenient else adapter.validate_json
                encoders[index] = partial(_dump, adapter)
            elif isinstance(hints[name], type) and issubclass(hints[name], Enum):
                decoders[index] = hints[name]
        return decoders, encoders

    def _type(self, name: str) -> str:
        return str(self.table.columns[name].type.compile(dialect=DIALECT))

    @cached_property
    def _quoted(self) -> str:
        return ", ".join(f'"{name}"' for name in self._names)

    @cached_property
    def _key(self) -> list[str]:
        return ["tenant_id"] if self.kind.KEY == "tenant_id" else ["tenant_id", self.kind.KEY]

    @cached_property
    def _columns(self) -> str:
        return ", ".join(f't."{name}"' for name in self._names)

    @cached_property
    def _of_one(self) -> str:
        return f'FROM "{self.table.name}" t WHERE t.tenant_id = $1 AND t."{self.kind.KEY}" = $2'

    @cached_property
    def _of_many(self) -> str:
        key = self.kind.KEY
        return (
            f'FROM "{self.table.name}" t JOIN unnest($1::uuid[], $2::{self._type(key)}[]) AS k(tenant_id, key) '
            f'ON t.tenant_id = k.tenant_id AND t."{key}" = k.key ORDER BY t.tenant_id, t."{key}"'
        )

    @cached_property
    def _given(self) -> str:
        """Rows as arrays, a column each, in the one lock order."""
        arrays = ", ".join(f"${index}::{self._type(name)}[]" for index, name in enumerate(self._names, 2))
        order = ", ".join(f'v."{name}"' for name in self._key)
        return f"(SELECT * FROM unnest($1::bigint[], {arrays}) AS v(stored_version, {self._quoted}) ORDER BY {order}) AS v"  # noqa: S608 - as above

    @cached_property
    def _insert(self) -> str:
        return f'INSERT INTO "{self.table.name}" ({self._quoted}) SELECT {self._quoted} FROM {self._given}'  # noqa: S608 - as above

    @cached_property
    def _update(self) -> str:
        assignments = ", ".join(f'"{name}" = v."{name}"' for name in self._names if name not in self._key)
        match = " AND ".join(f't."{name}" = v."{name}"' for name in self._key)
        return (
            f'UPDATE "{self.table.name}" t SET {assignments} FROM {self._given} '  # noqa: S608 - as above
            f"WHERE {match} AND t.version = v.stored_version"
        )

    @cached_property
    def _insert_one(self) -> str:
        places = ", ".join(f"${index}" for index, _ in enumerate(self._names, 1))
        return f'INSERT INTO "{self.table.name}" ({self._quoted}) VALUES ({places})'  # noqa: S608 - as above

    @cached_property
    def _update_one(self) -> str:
        places = {name: f"${index}" for index, name in enumerate(self._names, 2)}
        assignments = ", ".join(f'"{name}" = {place}' for name, place in places.items() if name not in self._key)
        match = " AND ".join(f'"{name}" = {places[name]}' for name in self._key)
        return f'UPDATE "{self.table.name}" SET {assignments} WHERE {match} AND version = $1'  # noqa: S608 - as above

    def decode(self, record: Mapping[str, Any]) -> A:
        """One row as its aggregate, whatever the order of its columns."""
        return self._decoded(self._by_name(record))

    def _decoded(self, values: Iterable[Any]) -> A:
        """Values in the order of the names as their aggregate."""
        if self._decoders:
            values = list(values)
            for index, decoder in self._decoders.items():
                values[index] = None if values[index] is None else decoder(values[index])
        return self._made(values)

    def _made_with_defaults(self, values: Iterable[Any]) -> A:
        return self.kind(**dict(zip(self._names, values, strict=True)))

    def types(self, names: Iterable[str]) -> list[type]:
        """What these columns hold."""
        return [self.table.columns[name].type.python_type for name in names]

    async def page(
        self,
        connection: Connection,
        tenant_id: UUID,
        *,
        after: Sequence[Any] | None,
        limit: int,
        by: Sequence[str] = (),
        newest_first: bool = False,
        where: Mapping[str, Any] = MappingProxyType({}),
    ) -> list[A]:
        """The rows of `judged_page`. Raises ValueError when one of them cannot be read."""
        found = await self.judged_page(
            connection, tenant_id, after=after, limit=limit, by=by, newest_first=newest_first, where=where
        )
        for each in found:
            if isinstance(each, Unreadable):
                raise each.error
        return [each for each in found if not isinstance(each, Unreadable)]

    async def judged_page(
        self,
        connection: Connection,
        tenant_id: UUID,
        *,
        after: Sequence[Any] | None,
        limit: int,
        by: Sequence[str] = (),
        newest_first: bool = False,
        where: Mapping[str, Any] = MappingProxyType({}),
    ) -> list[A | Unreadable]:
        """So many of a tenant's rows in the order of some columns, by default the key; without those that are deleted.

        `after` are these columns' values in the last row of the page before. `where` says what a column must be, or with an
        operator behind its name (`placed_at <`) what to compare it with, where `{}` stands in it if not at its end; None says
        nothing.
        """
        wanted = {name: value for name, value in where.items() if value is not None}
        conditions = [*wanted, *(["deleted_at IS NULL"] if "deleted_at" in self._names else [])]
        columns = tuple(by) or (self.kind.KEY,)
        rest = _paged(self.table.name, columns, tuple(conditions), newest_first=newest_first, goes_on=after is not None)
        found = await connection.fetch(f"SELECT {self._columns} {rest}", tenant_id, *(after or ()), *wanted.values(), limit)
        return self.judged(found, columns)

    async def load(
        self, connection: Connection, wanted: Sequence[tuple[UUID, Any]], *, lock: bool, ends: bool = False
    ) -> list[A]:
        """The stored ones among the wanted (tenant, key), locked in sorted order unless they are only looked at."""
        [found] = await select(connection, [self.wanted(wanted, lock=lock)], ends=ends)
        return self.made(found)

    def wanted(self, places: Sequence[tuple[UUID, Any]], *, lock: bool) -> Select:
        """What looks up the stored ones among these places (tenant, key), in sorted order."""
        is_one = len(places) == 1
        rest = self._of_one if is_one else self._of_many
        arguments = places[0] if is_one else ([tenant for tenant, _ in places], [key for _, key in places])
        return Select(self._columns, f"{rest} FOR UPDATE OF t" if lock else rest, arguments)

    def made(self, found: Iterable[Iterable[Any]]) -> list[A]:
        """What was looked up, as aggregates."""
        return [self._decoded(values) for values in found]

    def judged(self, found: Sequence[Sequence[Any]], by: Sequence[str] = ()) -> list[A | Unreadable]:
        """The same, but a row that cannot be read is told of as such and takes no other with it."""
        try:
            return [*self.made(found)]
        except ValueError:
            return [self._judged(values, by) for values in found]

    def _judged(self, values: Sequence[Any], by: Sequence[str]) -> A | Unreadable:
        try:
            return self._decoded(values)
        except ValueError as error:
            columns = dict(zip(self._names, values, strict=True))
            place = columns["tenant_id"], columns[self.kind.KEY]
            log.critical("row.unreadable", table=self.table.name, place=list(map(str, place)), error=str(error), action=REPAIR)
            return Unreadable(*place, error, [columns[name] for name in by])

    async def save(self, connection: Connection, states: Sequence[tuple[A, int]]) -> None:
        """Store each state over the version that was read (0: a new row); raises what `write` does."""
        await write(connection, self.changes(states))

    def changes(self, states: Sequence[tuple[A, int]]) -> list[Write]:
        """What stores each state over the version that was read (0: a new row), and over no other."""
        rows = [(version, *self._encoded(state)) for state, version in states]
        new, old = [row for row in rows if not row[0]], [row for row in rows if row[0]]
        return [*self._change(old, self._update_one, self._update), *self._change(new, self._insert_one, self._insert)]

    def _change(self, rows: Sequence[tuple[Any, ...]], one: str, many: str) -> Sequence[Write]:
        """One statement for them all; a single row, as most requests have, goes without arrays, for a third of the time."""
        if not rows:
            return ()
        if len(rows) > 1:
            return [Write(many, [*zip(*rows, strict=True)], len(rows))]
        [(version, *values)] = rows
        return [Write(one, [version, *values] if version else values, 1)]

    def canonical(self, state: A) -> bytes:
        """A state as bytes that are the same whenever it is the same: JSON, members sorted, also of what lies within."""
        values = self._encoded(state)
        for index in self._encoders:
            values[index] = values[index] if values[index] is None else orjson.loads(values[index])
        return orjson.dumps(dict(zip(self._names, values, strict=True)), default=_plain, option=orjson.OPT_SORT_KEYS)

    def _encoded(self, state: A) -> list[Any]:
        """A state's values in the order of the names, as they are stored."""
        values = list(self._values(state))
        for index, encoder in self._encoders.items():
            if values[index] is not None:
                values[index] = encoder(values[index])
        return values


@dataclass(frozen=True, slots=True)
class Projection:
    """A table that is made of nothing but topics, and the one beside it that a rebuild fills."""

    name: str
    live: Rows[Any]
    beside: Rows[Any]
    topics: Sequence[str]


@cache
def _paged(table: str, by: tuple[str, ...], conditions: tuple[str, ...], *, newest_first: bool, goes_on: bool) -> str:
    """One statement for each combination of conditions, so that each has the index it needs."""
    places = (f"${number}" for number in count(2))
    demands = ["t.tenant_id = $1"]
    if goes_on:
        order, values = ", ".join(f't."{name}"' for name in by), ", ".join(islice(places, len(by)))
        demands.append(f"({order}) {'<' if newest_first else '>'} ({values})")
    for condition in conditions:
        name, _, operator = condition.partition(" ")
        if operator != "IS NULL":
            operator = operator.format(next(places)) if "{}" in operator else f"{operator or '='} {next(places)}"
        demands.append(f't."{name}" {operator}')
    order = ", ".join(f't."{name}" DESC' if newest_first else f't."{name}"' for name in by)
    return f'FROM "{table}" t WHERE {" AND ".join(demands)} ORDER BY {order} LIMIT {next(places)}'


def _readable(adapter: "TypeAdapter[Any]", stored: str) -> Any:
    """The members of a stored mapping that can be read."""
    try:
        return adapter.validate_json(stored)
    except ValueError:
        value = orjson.loads(stored)
        found: dict[str, Any] = {}
        for name, each in value.items() if isinstance(value, dict) else ():
            try:
                found |= adapter.validate_json(orjson.dumps({name: each}))
            except ValueError as error:
                log.warning("member.unreadable", name=name, error=str(error), action=REPAIR)
        return found


def _plain(value: Any) -> str:
    """What JSON has no word for."""
    return value.hex() if isinstance(value, bytes) else str(value)


def _dump(adapter: "TypeAdapter[Any]", value: Any) -> str:
    return adapter.dump_json(value).decode()
