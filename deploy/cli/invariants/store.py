"""What was heard, on disk: a million orders take as much memory as ten.

One temporary database that nobody else reads, and that goes with the process. Purchases are read back a page at a time, by rising
id: a checkout with its orders, and all that was said of their payments, refunds and charges.
"""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import orjson
from asyncpg.pgproto import pgproto

from deploy.cli.invariants.facts import AfterOrder, Charge, Checkout, Inventory, Order, Payment, Published, Refund
from deploy.cli.invariants.notes import FAILED_REFUND, REFUND, RETURN, SCHEMA, SHIPMENT, microseconds, rows_of
from libs.common.contracts import Event

PAGE: Final = 1_000
"""So many purchases are judged at once."""
COMMON: Final = ""
"""The account at the provider that tenants share who have none of their own."""
_CACHE_KIB: Final = 65_536
_HELD_ROWS: Final = 5_000
"""So many are gathered before they are written down."""
_MICROSECONDS: Final = 1_000_000

_PROVIDER: Final = (
    # What names no checkout of ours is a purchase by itself, under its own id.
    """CREATE TABLE charge (
        account TEXT, tenant BLOB, purchase BLOB, id TEXT, checkout_id BLOB, payment_id BLOB, status TEXT,
        captured_minor INTEGER, currency TEXT, created_at INTEGER, charge_id TEXT,
        PRIMARY KEY (account, tenant, purchase, id)
    ) WITHOUT ROWID""",
    "CREATE INDEX charge_by_id ON charge (id)",
    "CREATE INDEX charge_by_charge_id ON charge (charge_id)",
    "CREATE TABLE given_back (id TEXT PRIMARY KEY, charge TEXT, amount_minor INTEGER, status TEXT) WITHOUT ROWID",
    "CREATE INDEX given_back_of ON given_back (charge, status, amount_minor)",
    "CREATE TABLE dispute (id TEXT PRIMARY KEY, charge TEXT) WITHOUT ROWID",
    "CREATE TABLE moved_money (source TEXT, currency TEXT, amount_minor INTEGER)",
)

# A refund that has left the balance and may yet come back is in nobody's books.
_NET: Final = """
    SELECT account, tenant, currency, sum(amount_minor) FROM (
        SELECT c.account, c.tenant, m.currency, m.amount_minor FROM moved_money m JOIN charge c ON c.charge_id = m.source
        UNION ALL
        SELECT c.account, c.tenant, m.currency, m.amount_minor
        FROM moved_money m JOIN given_back g ON g.id = m.source JOIN charge c ON c.id = g.charge
        WHERE g.status NOT IN ('pending', 'requires_action')
        UNION ALL
        SELECT c.account, c.tenant, m.currency, m.amount_minor
        FROM moved_money m JOIN dispute d ON d.id = m.source JOIN charge c ON c.id = d.charge
    ) GROUP BY account, tenant, currency"""

_PURCHASES: Final = """
    SELECT id FROM (SELECT id FROM checkout WHERE tenant = :tenant AND id > :after ORDER BY id LIMIT :page)
    UNION SELECT * FROM
        (SELECT DISTINCT checkout_id FROM customer_order WHERE tenant = :tenant AND checkout_id > :after
         ORDER BY checkout_id LIMIT :page)
    UNION SELECT * FROM
        (SELECT DISTINCT checkout_id FROM payment WHERE tenant = :tenant AND checkout_id > :after
         ORDER BY checkout_id LIMIT :page)
    UNION SELECT * FROM
        (SELECT DISTINCT purchase FROM charge WHERE account = :account AND tenant = :tenant AND purchase > :after
         ORDER BY purchase LIMIT :page)
    ORDER BY 1 LIMIT :page"""
_OF_PAGE: Final = "tenant = :tenant AND {column} > :after AND {column} <= :last"
_ORDERS: Final = f"FROM customer_order WHERE {_OF_PAGE.format(column='checkout_id')}"
_CHARGES: Final = f"FROM charge WHERE account = :account AND {_OF_PAGE.format(column='purchase')}"
# CROSS JOIN: a page's few rows first, and what belongs to each by its key.
_READ_CHECKOUTS: Final = f"""
    SELECT id, requested_at, goods, asked_at, on_shipment, ended_at FROM checkout WHERE {_OF_PAGE.format(column="id")}"""  # noqa: S608
_READ_ORDERS: Final = f"""
    SELECT id, number, checkout_id, payment_id, total_minor, currency, placed_at, goods {_ORDERS}"""
_READ_AFTER: Final = f"""
    SELECT a.id, canceled_at, first_shipped_at FROM (SELECT id {_ORDERS}) o
    CROSS JOIN after_order a ON a.tenant = :tenant AND a.id = o.id"""  # noqa: S608
_READ_MOVED: Final = f"""
    SELECT order_id, kind, m.id, goods, restock FROM (SELECT id {_ORDERS}) o
    CROSS JOIN moved m ON m.tenant = :tenant AND m.order_id = o.id"""  # noqa: S608
_PAYMENTS: Final = f"""
    SELECT id FROM payment WHERE {_OF_PAGE.format(column="checkout_id")}
    UNION SELECT payment_id {_ORDERS} UNION SELECT payment_id {_CHARGES}"""  # noqa: S608
_READ_PAYMENTS: Final = f"""
    SELECT p.id, checkout_id, unknown_at, heard_at, captured_minor FROM ({_PAYMENTS}) i
    CROSS JOIN payment p ON p.tenant = :tenant AND p.id = i.id"""  # noqa: S608
_REFUND: Final = "r.id, asked_at, payment_id, amount_minor, succeeded_at, failed_at, is_unasked"
_READ_REFUNDS: Final = f"""
    SELECT {_REFUND} FROM ({_PAYMENTS}) i CROSS JOIN refund r INDEXED BY refund_of_payment
    ON r.tenant = :tenant AND r.payment_id = i.id"""  # noqa: S608
_READ_CHARGES: Final = f"""
    SELECT id, checkout_id, payment_id, status, captured_minor, currency, created_at,
        (SELECT ifnull(sum(amount_minor), 0) FROM given_back WHERE charge = charge.id AND status = 'succeeded'),
        (SELECT ifnull(sum(amount_minor), 0) FROM given_back WHERE charge = charge.id AND status = 'pending')
    {_CHARGES}"""  # noqa: S608
_STRAY_REFUNDS: Final = f"""
    SELECT {_REFUND} FROM refund r WHERE tenant = :tenant AND id > :after
    AND NOT EXISTS (SELECT 1 FROM payment p WHERE p.tenant = r.tenant AND p.id = r.payment_id)
    ORDER BY id LIMIT :page"""  # noqa: S608


class Store:
    """Everything that was heard of all tenants."""

    def __init__(self) -> None:
        """Make an empty one, on disk as far as it does not fit into little memory."""
        self._database = sqlite3.connect("", isolation_level=None)  # no name: its file is SQLite's own, and goes with it
        for pragma in (f"cache_size = -{_CACHE_KIB}", "journal_mode = OFF", "synchronous = OFF", "temp_store = FILE"):
            self._database.execute(f"PRAGMA {pragma}")
        for statement in (*SCHEMA, *_PROVIDER, "BEGIN"):  # and never a COMMIT, since there is nothing to come back to
            self._database.execute(statement)
        self._held: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        self._held_rows = 0

    def close(self) -> None:
        """Forget everything."""
        self._database.close()

    def traced(self, told: Callable[[str], object]) -> None:
        """Tell of every statement from now on."""
        self._database.set_trace_callback(told)

    def take(self, event: Event, tenant_id: UUID, at: datetime, sequence: int) -> None:
        """Note what an event says."""
        for statement, row in rows_of(event, tenant_id.bytes, at, sequence):
            self._hold(statement, row)

    def begin_lists(self) -> None:
        """Forget what the provider had on its lists: they are read anew."""
        self._flush()
        for table in ("charge", "given_back", "dispute", "moved_money"):
            self._database.execute(f"DELETE FROM {table}")  # noqa: S608 - a name of our own

    def list_charge(self, account: str, tenant_id: UUID, charge: Charge, charge_id: str | None) -> None:
        """Note one payment on the list of an account, and the attempt that its money came by."""
        checkout_id, payment_id = (None if each is None else each.bytes for each in (charge.checkout_id, charge.payment_id))
        purchase = charge.id.encode() if checkout_id is None else checkout_id
        row = (account, tenant_id.bytes, purchase, charge.id, checkout_id, payment_id, charge.status, charge.captured_minor)
        told = (charge.currency, microseconds(charge.created_at), charge_id)
        self._hold("INSERT OR REPLACE INTO charge VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, *told))

    def list_refund(self, id_: str, charge: str, amount_minor: int, status: str) -> None:
        """Note one refund, and the payment that it is of."""
        self._hold("INSERT OR REPLACE INTO given_back VALUES (?, ?, ?, ?)", (id_, charge, amount_minor, status))

    def list_dispute(self, id_: str, charge: str) -> None:
        """Note one dispute, and the payment that it is about."""
        self._hold("INSERT OR REPLACE INTO dispute VALUES (?, ?)", (id_, charge))

    def list_money(self, source: str, currency: str, amount_minor: int) -> None:
        """Note what came to an account or left it, and for which charge, refund or dispute."""
        self._hold("INSERT INTO moved_money VALUES (?, ?, ?)", (source, currency, amount_minor))

    def net_minor(self) -> dict[tuple[str, UUID], Counter[str]]:
        """What the provider owes before its fees: by account and tenant, in each currency."""
        self._flush()
        found: dict[tuple[str, UUID], Counter[str]] = defaultdict(Counter)
        for account, tenant, currency, amount_minor in self._database.execute(_NET):
            found[account, pgproto.UUID(tenant)][currency] = amount_minor
        return found

    def of(self, tenant_id: UUID, account: str = COMMON, page: int = PAGE) -> "OfTenant":
        """What was heard of one tenant, whose money lies in this account."""
        self._flush()
        return OfTenant(self._database, tenant_id.bytes, account, page)

    def _hold(self, statement: str, row: tuple[Any, ...]) -> None:
        self._held[statement].append(row)
        self._held_rows += 1
        if self._held_rows >= _HELD_ROWS:
            self._flush()

    def _flush(self) -> None:
        for statement, rows in self._held.items():
            self._database.executemany(statement, rows)
        self._held.clear()
        self._held_rows = 0


@dataclass(frozen=True, slots=True)
class OfTenant:
    """What was heard of one tenant."""

    database: sqlite3.Connection
    tenant: bytes
    account: str
    page: int

    def pages(self) -> Iterator[tuple[Published, list[Charge]]]:
        """Every purchase once, with all that was said of it; then refunds of which nobody knows the payment."""
        after: object = b""
        while ids := self._read(_PURCHASES, after=after):
            yield self._page(after, ids[-1][0])
            after = ids[-1][0]
        after = b""
        while refunds := self._read(_STRAY_REFUNDS, after=after):
            yield Published(refunds=_refunds(refunds)), []
            after = refunds[-1][0]

    def numbers(self) -> Iterator[tuple[int, int]]:
        """The numbers of all orders, rising, and how many orders have each."""
        read = "SELECT number, count(*) FROM customer_order WHERE tenant = ? GROUP BY number ORDER BY number"
        yield from self.database.execute(read, [self.tenant])

    def inventory(self, sku: str) -> Iterator[tuple[int, Inventory]]:
        """What was said of a product's stock, by rising sequence."""
        read = "SELECT sequence, at, location, quantity, is_count FROM inventory WHERE tenant = ? AND sku = ? ORDER BY sequence"
        for sequence, at, location, quantity, is_count in self.database.execute(read, [self.tenant, sku]):
            yield sequence, Inventory(_time(at), location, quantity, bool(is_count))

    def _read(self, statement: str, **between: object) -> list[tuple[Any, ...]]:
        named = {"tenant": self.tenant, "account": self.account, "page": self.page, **between}
        return self.database.execute(statement, named).fetchall()

    def _page(self, after: object, last: object) -> tuple[Published, list[Charge]]:
        between = {"after": after, "last": last}
        published = Published(
            checkouts={pgproto.UUID(id_): _checkout(*told) for id_, *told in self._read(_READ_CHECKOUTS, **between)},
            orders={pgproto.UUID(id_): _order(*told) for id_, *told in self._read(_READ_ORDERS, **between)},
            after={
                pgproto.UUID(id_): AfterOrder(canceled_at=_moment(canceled_at), first_shipped_at=_moment(first_shipped_at))
                for id_, canceled_at, first_shipped_at in self._read(_READ_AFTER, **between)
            },
            payments={
                pgproto.UUID(id_): Payment(pgproto.UUID(checkout_id), _moment(unknown_at), _moment(heard_at), captured_minor)
                for id_, checkout_id, unknown_at, heard_at, captured_minor in self._read(_READ_PAYMENTS, **between)
            },
            refunds=_refunds(self._read(_READ_REFUNDS, **between)),
        )
        for order_id, kind, id_, goods, restock in self._read(_READ_MOVED, **between):
            _move(published.after.setdefault(pgproto.UUID(order_id), AfterOrder()), kind, id_, goods, restock)
        return published, [_charge(*told) for told in self._read(_READ_CHARGES, **between)]


def _time(at: int) -> datetime:
    return datetime.fromtimestamp(at / _MICROSECONDS, UTC)


def _moment(at: int | None) -> datetime | None:
    return _time(at) if at else None


def _checkout(
    requested_at: int | None, goods: bytes | None, asked_at: int | None, on_shipment: int | None, ended_at: int | None
) -> Checkout:
    return Checkout(
        _moment(requested_at),
        orjson.loads(goods) if goods else {},
        _moment(asked_at),
        bool(on_shipment),
        _moment(ended_at),
    )


def _order(
    number: int, checkout_id: bytes, payment_id: bytes, total_minor: int, currency: str, placed_at: int, goods: bytes
) -> Order:
    lines = {line_id: (sku, quantity) for line_id, (sku, quantity) in orjson.loads(goods).items()}
    return Order(number, pgproto.UUID(checkout_id), pgproto.UUID(payment_id), total_minor, currency, _time(placed_at), lines)


def _move(after: AfterOrder, kind: int, id_: Any, goods: bytes, restock: int | None) -> None:
    lines = orjson.loads(goods)
    if kind == SHIPMENT:
        after.shipments[id_] = lines
    elif kind == RETURN and restock:  # what may not be sold again is on no shelf
        after.returns[id_] = lines
    elif kind == REFUND:
        after.refunds[pgproto.UUID(id_)] = (lines, None if restock is None else bool(restock))
    elif kind == FAILED_REFUND:
        after.failed_refunds.add(pgproto.UUID(id_))


def _refunds(rows: Iterable[tuple[Any, ...]]) -> dict[UUID, Refund]:
    return {
        pgproto.UUID(id_): Refund(
            _time(asked_at),
            pgproto.UUID(payment_id),
            amount_minor,
            _moment(succeeded_at),
            _moment(failed_at),
            bool(is_unasked),
        )
        for id_, asked_at, payment_id, amount_minor, succeeded_at, failed_at, is_unasked in rows
    }


def _charge(
    id_: str,
    checkout_id: bytes | None,
    payment_id: bytes | None,
    status: str,
    captured_minor: int,
    currency: str,
    created_at: int,
    refunded_minor: int,
    returning_minor: int,
) -> Charge:
    return Charge(
        id=id_,
        checkout_id=None if checkout_id is None else pgproto.UUID(checkout_id),
        payment_id=None if payment_id is None else pgproto.UUID(payment_id),
        status=status,
        captured_minor=captured_minor,
        refunded_minor=refunded_minor,
        returning_minor=returning_minor,
        currency=currency,
        created_at=_time(created_at),
    )
