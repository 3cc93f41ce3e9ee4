"""A long past for a shop: real orders copied a million times over, with new ids, into every table that keeps orders.

Each copied order has all the rows that a real one left: cart, session, checkout, order, payment, operations, ledger,
webhooks, timeline. Rows travel as text through `COPY`, and only what names the order is changed in them.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg

LEFT_BEHIND: Final = {
    "identity": {"session": ("subject_id", "subject_id")},
    "cart": {"cart": ("id", "cart_id")},
    "checkout": {
        "cart_claim": ("id", "cart_id"),
        "checkout": ("id", "checkout_id"),
        "customer_order": ("id", "order_id"),
        "timeline_entry": ("story_id", "checkout_id"),
    },
    "payments": {
        "payment": ("id", "payment_id"),
        "operation": ("payment_id", "payment_id"),
        "attempt": ("payment_id", "payment_id"),
        "ledger_entry": ("payment_id", "payment_id"),
        "webhook_event": ("payment_id", "payment_id"),
    },
}
"""By database: its tables, and the column that finds an order's rows in them by which of its ids."""

_NUMBER: Final = "@number@"
_NAME: Final = re.compile(rf"[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}|(?<=_)[0-9a-f]{{24}}\b|{_NUMBER}")
"""What can name an order or a part of it: our ids, the provider's, the order's number."""

_STEP: Final = 0x9E3779B97F4A7C15F39CC0605CEDC835
"""Odd, so that no two copies of an id are alike, and large, so that they lie as scattered as the originals."""
_BY_TIME: Final = 7
_EARLIER: Final = 50 << 80
"""A UUIDv7 begins with its milliseconds: one copy every 50 ms, back into the past."""
_SCATTERED: Final = (1 << 60) - 1
"""And ends with its random part."""
_TEMPLATES: Final = 50
_CHUNK: Final = 2_000
_AT_ONCE: Final = 2


class Table(NamedTuple):
    """What a few real orders left in a table, as text."""

    columns: list[str]
    rows: list[list[str]]
    """By order."""


async def copy_history(admin_url: str, tenant_id: str, count: int, say: Callable[[str], None]) -> None:
    """Give a tenant so many more orders. Nothing else may be going on."""
    async with _session(admin_url, "checkout") as checkout:
        orders = await checkout.fetch(
            "SELECT id AS order_id, cart_id, checkout_id, payment_id, subject_id FROM customer_order "
            "WHERE tenant_id = $1::text::uuid AND payment_state = 'captured' ORDER BY number LIMIT $2",
            tenant_id,
            _TEMPLATES,
        )
        last = await checkout.fetchval(
            "UPDATE order_counter SET last_number = last_number + $2 WHERE tenant_id = $1::text::uuid RETURNING last_number - $2",
            tenant_id,
            count,
        )
    limit = asyncio.Semaphore(_AT_ONCE)

    async def fill(database: str, name: str, column: str, key: str) -> None:
        async with limit, _session(admin_url, database) as session:
            table = await _read(session, name, column, [order[key] for order in orders])
            await session.copy_to_table(name, source=_chunks(table, tenant_id, last, count), columns=table.columns)
            say(f"{count} past orders are in {database}.{name}")

    async with asyncio.TaskGroup() as group:
        for database, tables in LEFT_BEHIND.items():
            for name, (column, key) in tables.items():
                group.create_task(fill(database, name, column, key))
    for database, tables in LEFT_BEHIND.items():
        async with _session(admin_url, database) as session:
            await session.execute(f"VACUUM (ANALYZE) {', '.join(tables)}")
            await session.execute("CHECKPOINT")


@asynccontextmanager
async def _session(admin_url: str, database: str) -> AsyncIterator[asyncpg.Connection]:
    """The superuser's: nobody else may copy past row-level security. Foreign keys hold by the making of the rows."""
    session = await asyncpg.connect(f"{admin_url.rpartition('/')[0]}/{database}")
    try:
        await session.execute("SET session_replication_role = replica; SET synchronous_commit = off")
        yield session
    finally:
        await session.close()


async def _read(session: asyncpg.Connection, name: str, column: str, keys: list[Any]) -> Table:
    found = await session.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped", name
    )
    columns = [row["attname"] for row in found]
    values = ", ".join(f"'{_NUMBER}'" if (name, each) == ("customer_order", "number") else f'"{each}"' for each in columns)
    rows = []
    for key in keys:
        text = BytesIO()
        await session.copy_from_query(f'SELECT {values} FROM "{name}" WHERE "{column}" = $1', key, output=text)  # noqa: S608 - our own names
        rows.append(text.getvalue().decode().splitlines(keepends=True))
    return Table(columns, rows)


async def _chunks(table: Table, tenant_id: str, last: int, count: int) -> AsyncIterator[bytes]:
    makers = [[_maker(row, tenant_id) for row in rows] for rows in table.rows]
    for begin in range(0, count, _CHUNK):
        lines = (make(last, n) for n in range(begin + 1, min(begin + _CHUNK, count) + 1) for make in makers[n % len(makers)])
        yield "".join(lines).encode()


def _maker(row: str, tenant_id: str) -> Callable[[int, int], str]:
    """What makes the n-th copy of a row: the same text between new names."""
    texts, names, end = [], [], 0
    for found in _NAME.finditer(row):
        if found.group() != tenant_id:
            texts.append(row[end : found.start()])
            names.append(_renamed(found.group()))
            end = found.end()
    rest = row[end:]

    def make(last: int, n: int) -> str:
        return "".join([part for text, name in zip(texts, names, strict=True) for part in (text, name(last, n))]) + rest

    return make


def _renamed(name: str) -> Callable[[int, int], str]:
    """The n-th copy of a name. The same name becomes the same copy wherever it stands."""
    if name == _NUMBER:
        return lambda last, n: str(last + n)
    if "-" not in name:
        reference = int(name, 16)
        return lambda _, n: f"{(reference + n * _STEP) % 16**24:024x}"
    uuid = UUID(name).int
    step = (_STEP & _SCATTERED) - _EARLIER if UUID(name).version == _BY_TIME else _STEP
    return lambda _, n: _dashed(f"{(uuid + n * step) % 2**128:032x}")


def _dashed(digits: str) -> str:
    """A UUID as it is written; a third of what the class takes."""
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
