"""What is kept of each event that counts, as rows: who hears of a million orders keeps them on disk.

Events are taken in whatever order topics give them, and any number of times: each sets what it says, and counts nothing up.
Ids are kept as their bytes, moments as whole microseconds.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

from libs.common.contracts import Event
from libs.common.contracts.cart import CartFrozen
from libs.common.contracts.checkout import (
    CheckoutCanceled,
    CheckoutExpired,
    CheckoutFailed,
    CheckoutRequested,
    OrderCanceled,
    OrderConfirmed,
    OrderRefunded,
    OrderRefundFailed,
    PaymentRequested,
    RefundRequested,
)
from libs.common.contracts.fulfilment import ReturnReceived, ShipmentDispatched
from libs.common.contracts.inventory import StockAdjusted, StockCounted
from libs.common.contracts.payments import (
    PaymentAuthorized,
    PaymentCaptured,
    PaymentDeclined,
    PaymentExpired,
    PaymentUnknown,
    PaymentVoided,
    RefundFailed,
    RefundPending,
    RefundSucceeded,
)

NO_ORDER: Final = "no-order"
"""Why payments gives money back that nobody asked for."""

SHIPMENT, RETURN, REFUND, FAILED_REFUND = range(4)
"""What moves an order's goods, or once seemed to."""

_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MICROSECOND: Final = timedelta(microseconds=1)

SCHEMA: Final = (
    """CREATE TABLE checkout (
        tenant BLOB, id BLOB, requested_at INTEGER, goods BLOB, asked_at INTEGER, on_shipment INTEGER, ended_at INTEGER,
        PRIMARY KEY (tenant, id)
    ) WITHOUT ROWID""",
    """CREATE TABLE customer_order (
        tenant BLOB, id BLOB, checkout_id BLOB, number INTEGER, payment_id BLOB, total_minor INTEGER, currency TEXT,
        placed_at INTEGER, goods BLOB,
        PRIMARY KEY (tenant, id)
    ) WITHOUT ROWID""",
    "CREATE INDEX order_of_checkout ON customer_order (tenant, checkout_id)",
    "CREATE INDEX order_number ON customer_order (tenant, number)",
    """CREATE TABLE after_order (
        tenant BLOB, id BLOB, canceled_at INTEGER, first_shipped_at INTEGER, PRIMARY KEY (tenant, id)
    ) WITHOUT ROWID""",
    """CREATE TABLE moved (
        tenant BLOB, order_id BLOB, kind INTEGER, id, goods BLOB, restock INTEGER, PRIMARY KEY (tenant, order_id, kind, id)
    ) WITHOUT ROWID""",
    """CREATE TABLE payment (
        tenant BLOB, id BLOB, checkout_id BLOB, unknown_at INTEGER DEFAULT 0, heard_at INTEGER DEFAULT 0,
        captured_minor INTEGER DEFAULT 0,
        PRIMARY KEY (tenant, id)
    ) WITHOUT ROWID""",
    "CREATE INDEX payment_of_checkout ON payment (tenant, checkout_id)",
    """CREATE TABLE refund (
        tenant BLOB, id BLOB, payment_id BLOB, amount_minor INTEGER, asked_at INTEGER, succeeded_at INTEGER, failed_at INTEGER,
        is_unasked INTEGER DEFAULT 0,
        PRIMARY KEY (tenant, id)
    ) WITHOUT ROWID""",
    "CREATE INDEX refund_of_payment ON refund (tenant, payment_id)",
    """CREATE TABLE inventory (
        tenant BLOB, sku TEXT, sequence INTEGER, at INTEGER, location TEXT, quantity INTEGER, is_count INTEGER,
        PRIMARY KEY (tenant, sku, sequence)
    ) WITHOUT ROWID""",
)


class Note(NamedTuple):
    """How an event is kept: a statement, and what it is given behind the tenant."""

    statement: str
    row: Callable[[Any, int, int], tuple[Any, ...]]
    """Of the event, when it happened, and its sequence."""


def microseconds(at: datetime) -> int:
    """A moment as it is kept."""
    return (at - _EPOCH) // _MICROSECOND


def _kept(table: str, *columns: str, **changes: str) -> str:
    """Insert a row, or change of the one that is there what is said: without words of its own, what is new."""
    keys = {"moved": 4, "inventory": 3}.get(table, 2)
    names = ("tenant", *columns)
    new = [f"{name} = {changes.get(name, f'excluded.{name}')}" for name in names[keys:] if changes.get(name, "new")]
    then = f"DO UPDATE SET {', '.join(new)}" if new else "DO NOTHING"
    marks = ", ".join("?" * len(names))
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks}) ON CONFLICT {then}"  # noqa: S608 - names of our own


def _frozen(event: CartFrozen, _at: int, _: int) -> tuple[Any, ...]:
    goods: dict[str, int] = {}
    for line in event.lines:
        goods[line.sku] = goods.get(line.sku, 0) + line.quantity
    return event.checkout_id.bytes, orjson.dumps(goods)


def _confirmed(event: OrderConfirmed, _at: int, _: int) -> tuple[Any, ...]:
    goods = {line.line_id: (line.sku, line.quantity) for line in event.lines}
    ids = (event.order_id.bytes, event.checkout_id.bytes, event.number, event.payment_id.bytes)
    return (*ids, event.totals.total_minor, event.currency, microseconds(event.placed_at), orjson.dumps(goods))


def _moved(
    event: OrderRefunded | OrderRefundFailed | ShipmentDispatched | ReturnReceived, kind: int, id_: object, restock: object
) -> tuple[Any, ...]:
    goods = {line.line_id: line.quantity for line in event.lines}
    return event.order_id.bytes, kind, id_, orjson.dumps(goods), restock


_REQUESTED = Note(_kept("checkout", "id", "requested_at"), lambda event, at, _: (event.checkout_id.bytes, at))
_ENDED = Note(_kept("checkout", "id", "ended_at"), lambda event, at, _: (event.checkout_id.bytes, at))
_ASKED = Note(
    _kept("checkout", "id", "asked_at", "on_shipment"),
    lambda event, at, _: (event.checkout_id.bytes, at, event.capture == "on-shipment"),
)
_ORDER = Note(
    _kept(
        "customer_order",
        *("id", "checkout_id", "number", "payment_id", "total_minor", "currency", "placed_at", "goods"),
    ),
    _confirmed,
)
_CANCELED = Note(_kept("after_order", "id", "canceled_at"), lambda event, at, _: (event.order_id.bytes, at))
_SHIPPED = Note(
    _kept(
        "after_order",
        *("id", "first_shipped_at"),
        first_shipped_at="min(ifnull(first_shipped_at, excluded.first_shipped_at), excluded.first_shipped_at)",
    ),
    lambda event, at, _: (event.order_id.bytes, at),
)
_MOVED = _kept("moved", "order_id", "kind", "id", "goods", "restock")
_GOODS: Mapping[type[Event], Note] = {
    ShipmentDispatched: Note(_MOVED, lambda event, *_: _moved(event, SHIPMENT, event.shipment_id, None)),
    # What may not be sold again is not on the shelf: nothing is moved there.
    ReturnReceived: Note(_MOVED, lambda event, *_: _moved(event, RETURN, event.return_id, event.restock)),
    OrderRefunded: Note(_MOVED, lambda event, *_: _moved(event, REFUND, event.refund_id.bytes, event.restock)),
    OrderRefundFailed: Note(_MOVED, lambda event, *_: _moved(event, FAILED_REFUND, event.refund_id.bytes, None)),
}
# Whose checkout a payment is was said first, and by nobody again.
_UNKNOWN = Note(
    _kept("payment", "id", "checkout_id", "unknown_at", checkout_id="", unknown_at="max(unknown_at, excluded.unknown_at)"),
    lambda event, at, _: (event.payment_id.bytes, event.checkout_id.bytes, at),
)
_HEARD = Note(
    _kept("payment", "id", "checkout_id", "heard_at", checkout_id="", heard_at="max(heard_at, excluded.heard_at)"),
    lambda event, at, _: (event.payment_id.bytes, event.checkout_id.bytes, at),
)
_CAPTURED = Note(
    _kept(
        "payment",
        *("id", "checkout_id", "heard_at", "captured_minor"),
        checkout_id="",
        heard_at="max(heard_at, excluded.heard_at)",
        captured_minor="max(captured_minor, excluded.captured_minor)",
    ),
    lambda event, at, _: (event.payment_id.bytes, event.checkout_id.bytes, at, event.captured_minor),
)
_REFUND_ROW = ("id", "payment_id", "amount_minor", "asked_at")
_FIRST_SAID = {"payment_id": "", "amount_minor": "", "asked_at": "min(asked_at, excluded.asked_at)"}
_REFUND = Note(_kept("refund", *_REFUND_ROW, **_FIRST_SAID), lambda event, at, _: _refund_row(event, at))
_GIVEN = Note(
    _kept("refund", *_REFUND_ROW, "succeeded_at", "is_unasked", **_FIRST_SAID),
    lambda event, at, _: (*_refund_row(event, at), at, event.cause == NO_ORDER),
)
_NOT_GIVEN = Note(_kept("refund", *_REFUND_ROW, "failed_at", **_FIRST_SAID), lambda event, at, _: (*_refund_row(event, at), at))
# A sequence is taken once, whoever repeats it.
_INVENTORY_ROW = ("sku", "sequence", "at", "location", "quantity", "is_count")
_STOCK = _kept("inventory", *_INVENTORY_ROW, **dict.fromkeys(_INVENTORY_ROW, ""))


def _refund_row(event: RefundRequested | RefundPending | RefundSucceeded | RefundFailed, at: int) -> tuple[Any, ...]:
    return event.refund_id.bytes, event.payment_id.bytes, event.amount_minor, at


NOTES: Mapping[type[Event], tuple[Note, ...]] = {
    CheckoutRequested: (_REQUESTED,),
    CartFrozen: (Note(_kept("checkout", "id", "goods"), _frozen),),
    PaymentRequested: (_ASKED,),
    CheckoutFailed: (_ENDED,),
    CheckoutCanceled: (_ENDED,),
    CheckoutExpired: (_ENDED,),
    OrderConfirmed: (_ORDER,),
    OrderCanceled: (_CANCELED,),
    OrderRefunded: (_GOODS[OrderRefunded],),
    OrderRefundFailed: (_GOODS[OrderRefundFailed],),
    ShipmentDispatched: (_SHIPPED, _GOODS[ShipmentDispatched]),
    ReturnReceived: (_GOODS[ReturnReceived],),
    **dict.fromkeys((PaymentAuthorized, PaymentDeclined, PaymentVoided, PaymentExpired), (_HEARD,)),
    PaymentCaptured: (_CAPTURED,),
    PaymentUnknown: (_UNKNOWN,),
    RefundRequested: (_REFUND,),
    RefundPending: (_REFUND,),
    RefundSucceeded: (_GIVEN,),
    RefundFailed: (_NOT_GIVEN,),
    StockCounted: (Note(_STOCK, lambda event, at, sequence: (event.sku, sequence, at, event.location, event.quantity, True)),),
    StockAdjusted: (Note(_STOCK, lambda event, at, sequence: (event.sku, sequence, at, event.location, event.delta, False)),),
}
"""The events that count, and what is noted of each."""


def rows_of(event: Event, tenant: bytes, at: datetime, sequence: int) -> Iterable[tuple[str, tuple[Any, ...]]]:
    """What is written down of an event: statements, and what they are given."""
    moment = microseconds(at)
    return [(note.statement, (tenant, *note.row(event, moment, sequence))) for note in NOTES.get(type(event), ())]
