"""Postgres as the services use it: transactions for named tenants, statements compiled once, aggregates by the batch.

SQLAlchemy describes the tables and the rarer queries; everything runs on asyncpg directly (four times as many small
transactions on one core). Nothing here reads or writes a tenant's row outside `Database.transaction`.

Tables without a tenant, and why: `outbox_cursor` and `inbox_position` are positions in streams that all tenants share;
`outbox_topic` is what a topic had when it was first used; `inbox_message` remembers ids by their publisher, before anybody
looks inside; `operator_action` is what operators of the platform did; `inbox_parked` also holds messages whose tenant could
not be believed; `alembic_version` is Alembic's.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar, get_type_hints
from uuid import UUID

import asyncpg
from sqlalchemy import BigInteger, Column, Executable, PrimaryKeyConstraint, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from libs.common import tenancy
from libs.common.errors import ConflictError, UnavailableError
from libs.common.messaging.decision import Aggregate, shape_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from sqlalchemy import MetaData

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

TRANSIENT: tuple[type[Exception], ...] = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg calls a statement on a connection that is just breaking
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.TransactionRollbackError,
    asyncpg.exceptions.LockNotAvailableError,
)
"""What passes by itself: tried again with backoff, and never held against a message."""


PLANNING = {"plan_cache_mode": "force_generic_plan"} | dict.fromkeys(
    ("jit", "enable_seqscan", "enable_hashjoin", "enable_mergejoin"), "off"
)
"""Every hot statement is prepared once and takes arrays: planning it anew for each set of values took as long as running it.

A plan that is made once is made early, and to an empty table nothing is cheaper than reading all of it, which it goes on
doing when the table has grown. So plans do not depend on sizes: rows are found by their keys, one index look-up each.
"""


class ConcurrencyError(Exception):
    """A row was not as it had been read: somebody was faster. The whole transaction is tried again."""


_dialect = PGDialect_asyncpg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]


PASSING: tuple[type[Exception], ...] = (UnavailableError, ConcurrencyError, *TRANSIENT)
"""All that passes by itself, for whoever retries a whole transaction."""


def passes_by_itself(error: BaseException) -> bool:
    """Whether trying again may help. A value that asyncpg cannot encode never will, though it calls it an interface error."""
    return isinstance(error, PASSING) and not (isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError))


class Statement:
    """A SQLAlchemy statement, compiled once; called with its parameters by name."""

    def __init__(self, query: Executable) -> None:
        compiled = query.compile(dialect=_dialect)  # type: ignore[attr-defined]
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


def tenant_table(metadata: "MetaData") -> Table:
    """Where a service other than identity keeps what it knows of its tenants (`tenancy.Tenant`)."""
    numbers = [Column(name, BigInteger, nullable=False) for name in ("version", "sequence", "tenant_version")]
    texts = [Column(name, Text, nullable=False) for name in ("slug", "status", "currency", "country")]
    return Table(
        "tenant",
        metadata,
        Column("tenant_id", Uuid, nullable=False),
        *numbers,
        *texts,
        Column("settings", JSONB, nullable=False),
        PrimaryKeyConstraint("tenant_id", name="tenant_pkey"),
    )


A = TypeVar("A", bound=Aggregate)


class Rows(Generic[A]):
    """Loads and saves aggregates of one kind, any number with one statement. Columns and fields have the same names."""

    LEFT_OUT: ClassVar[frozenset[str]] = frozenset()
    """Fields with a default that the table has no column for."""

    def __init__(self, table: Table, kind: type[A]) -> None:
        self.table = table
        self.kind = kind
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
                decoders[index] = adapter.validate_json
                encoders[index] = partial(_dump, adapter)
            elif isinstance(hints[name], type) and issubclass(hints[name], Enum):
                decoders[index] = hints[name]
        return decoders, encoders

    def _type(self, name: str) -> str:
        return str(self.table.columns[name].type.compile(dialect=_dialect))

    @cached_property
    def _quoted(self) -> str:
        return ", ".join(f'"{name}"' for name in self._names)

    @cached_property
    def _key(self) -> list[str]:
        return ["tenant_id"] if self.kind.KEY == "tenant_id" else ["tenant_id", self.kind.KEY]

    @cached_property
    def _select_one(self) -> str:
        where = f'WHERE tenant_id = $1 AND "{self.kind.KEY}" = $2'
        return f'SELECT {self._quoted} FROM "{self.table.name}" t {where}'  # noqa: S608 - names of our own tables only

    @cached_property
    def _select(self) -> str:
        key = self.kind.KEY
        columns = ", ".join(f't."{name}"' for name in self._names)
        return (
            f'SELECT {columns} FROM "{self.table.name}" t '  # noqa: S608 - as above
            f"JOIN unnest($1::uuid[], $2::{self._type(key)}[]) AS k(tenant_id, key) "
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

    async def load(self, connection: Connection, wanted: Sequence[tuple[UUID, Any]], *, lock: bool) -> list[A]:
        """The stored ones among the wanted (tenant, key), locked in sorted order unless they are only looked at."""
        is_one = len(wanted) == 1
        sql = self._select_one if is_one else self._select
        places = wanted[0] if is_one else ([tenant for tenant, _ in wanted], [key for _, key in wanted])
        records = await connection.fetch(f"{sql} FOR UPDATE OF t" if lock else sql, *places)
        return [self._decoded(record) for record in records]

    async def save(self, connection: Connection, states: Sequence[tuple[A, int]]) -> None:
        """Store each state over the version that was read (0: a new row).

        Raises ConcurrencyError if one had moved or had just been made, and ConflictError when a unique constraint other
        than the key forbids it: the constraint's name, without its table's, is the error's code.
        """
        rows = [(version, *self._values(state)) for state, version in states]
        new, old = [row for row in rows if not row[0]], [row for row in rows if row[0]]
        try:
            stored = await self._put(connection, old, self._update_one, self._update) if old else 0
            stored += await self._put(connection, new, self._insert_one, self._insert) if new else 0
        except asyncpg.UniqueViolationError as error:
            name = str(error.constraint_name)
            if name == f"{self.table.name}_pkey":
                raise ConcurrencyError(str(error)) from error
            code = name.removeprefix(f"{self.table.name}_").replace("_", "-")
            raise ConflictError(code, f"this {self.table.name} cannot be: {code.replace('-', ' ')}") from error
        if stored != len(states):
            message = f"{len(states) - stored} of {len(states)} rows of {self.table.name} had moved"
            raise ConcurrencyError(message)

    async def _put(self, connection: Connection, rows: Sequence[tuple[Any, ...]], one: str, many: str) -> int:
        """One statement for them all; a single row, as most requests have, goes without arrays, for a third of the time."""
        columns = self._columns(rows)
        if len(rows) > 1:
            status = await connection.execute(many, *columns)
        else:
            version, *values = [column[0] for column in columns]
            status = await connection.execute(one, *([version, *values] if version else values))
        return int(status.rpartition(" ")[2])

    def _columns(self, rows: Sequence[tuple[Any, ...]]) -> list[Sequence[Any]]:
        """Rows, each behind its stored version, as arguments of a statement that takes arrays."""
        columns: list[Sequence[Any]] = [*zip(*rows, strict=True)]
        for index, encoder in self._encoders.items():
            columns[index + 1] = [None if value is None else encoder(value) for value in columns[index + 1]]
        return columns


@dataclass(frozen=True, slots=True)
class Projection:
    """A table that is made of nothing but topics, and the one beside it that a rebuild fills."""

    name: str
    live: Rows[Any]
    beside: Rows[Any]
    topics: Sequence[str]


def _dump(adapter: "TypeAdapter[Any]", value: Any) -> str:
    return adapter.dump_json(value).decode()


class Database:
    """A service's database under one role."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self.pool = pool

    @classmethod
    async def connect(cls, url: str, *, application: str, size: int = 10) -> "Database":
        """Open a pool whose connections bound how long they can hold anything."""
        limits = {"lock_timeout": "5s", "statement_timeout": "20s", "idle_in_transaction_session_timeout": "20s"}
        try:
            pool = await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=size,
                command_timeout=30,
                reset=_nothing_to_reset,
                server_settings={"application_name": application, **PLANNING, **limits},
            )
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            raise UnavailableError("database-unavailable", f"cannot connect with the given database URL: {error}") from error
        return cls(pool)

    async def close(self) -> None:
        """Close every connection; those still busy after five seconds are cut."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.pool.close(), 5)

    @asynccontextmanager
    async def transaction(self, tenant_ids: Iterable[UUID]) -> AsyncIterator[Connection]:
        """A READ COMMITTED transaction that sees these tenants' rows and no others."""
        async with self.acquire() as connection:
            try:
                await connection.execute(tenancy.begin(tenant_ids))
                yield connection
                await connection.execute("COMMIT")
            except BaseException:
                await _roll_back(connection)
                raise

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A bare connection, outside any transaction."""
        try:
            connection = await self.pool.acquire(timeout=5)
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            raise UnavailableError("database-unavailable", "the database does not answer; try again shortly") from error
        try:
            yield connection
        finally:
            await self.pool.release(connection)


async def _nothing_to_reset(_: Connection) -> None:
    """Settings end with their transaction here, so a connection comes back clean without asking the server."""


async def _roll_back(connection: Connection) -> None:
    """Leave nothing open, also when the cause was a cancellation; a connection that cannot is thrown away."""
    try:
        await asyncio.shield(connection.execute("ROLLBACK"))
    except (asyncio.CancelledError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        connection.terminate()


SERVICES = Path(__file__).resolve().parents[2] / "services"


def migrate(service: str, owner_url: str) -> None:
    """Bring a service's database to the newest migration."""
    from alembic import command

    command.upgrade(alembic_config(service, owner_url), "head")


def alembic_config(service: str, owner_url: str) -> Any:
    """How Alembic finds a service's migrations."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SERVICES / service / "migrations"))
    config.attributes["owner_url"] = owner_url
    return config


def run_migrations(metadata: "MetaData") -> None:
    """What every `migrations/env.py` calls: run on the owner's connection, giving up rather than queueing on a lock."""
    from alembic import context
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    def run(connection: Any) -> None:
        connection.execute(text("SET lock_timeout = '3s'"))
        context.configure(connection=connection, target_metadata=metadata, include_name=_not_the_kernel)
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()

    async def main() -> None:
        url = context.config.attributes["owner_url"].replace("postgresql://", "postgresql+asyncpg://", 1)
        engine = create_async_engine(url, poolclass=NullPool)
        async with engine.connect() as connection:
            await connection.run_sync(run)
        await engine.dispose()

    asyncio.run(main())


def _not_the_kernel(name: str | None, kind: str, _parents: Any) -> bool:
    """The kernel's tables have types SQLAlchemy does not know; `messaging/schema.py` alone describes them."""
    return not (kind == "table" and str(name).startswith(("outbox_", "inbox_", "idempotency_", "operator_", "timer")))
