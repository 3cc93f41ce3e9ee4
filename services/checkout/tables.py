"""The checkout service's tables. The tenant leads every key; what must never be is a constraint."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.database import tenant_table

METADATA = MetaData()


def _aggregate(name: str, key: Column[object], *rest: Column[object] | CheckConstraint | UniqueConstraint | Index) -> Table:
    """A table of aggregates: the columns that each has, then its own."""
    return Table(
        name,
        METADATA,
        Column("tenant_id", Uuid, nullable=False),
        key,
        Column("version", BigInteger, nullable=False),
        Column("sequence", BigInteger, nullable=False),
        *rest,
        PrimaryKeyConstraint("tenant_id", key.name, name=f"{name}_pkey"),
    )


def _bigint(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, BigInteger, nullable=nullable)


TENANT = tenant_table(METADATA)

CART_CLAIM = _aggregate("cart_claim", Column("id", Uuid, nullable=False), Column("checkout_id", Uuid, nullable=False))

CHECKOUT = _aggregate(
    "checkout",
    Column("id", Uuid, nullable=False),
    Column("subject_id", Uuid, nullable=False),
    Column("cart_id", Uuid, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("method", Text, nullable=False),
    Column("email", Text),
    Column("body_digest", Text, nullable=False),
    Column("currency", Text),
    _bigint("total_minor", nullable=True),
    Column("quote", JSONB),
    Column("allocations", JSONB, nullable=False),
    Column("order_id", Uuid, nullable=False),
    Column("payment_id", Uuid, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    CheckConstraint(
        "state IN ('started', 'frozen', 'quoted', 'reserved', 'paying', 'confirmed', 'canceling', 'expiring', "
        "'failed', 'canceled', 'expired')",
        name="checkout_state",
    ),
    CheckConstraint("(state <> 'failed') OR (reason IS NOT NULL)", name="checkout_reason"),
    CheckConstraint("(state NOT IN ('paying', 'confirmed')) OR (quote IS NOT NULL)", name="checkout_quoted"),
)

ORDER = _aggregate(
    "customer_order",
    Column("id", Uuid, nullable=False),
    _bigint("number"),
    Column("state", Text, nullable=False),
    Column("payment_state", Text, nullable=False),
    Column("fulfilment_state", Text, nullable=False),
    Column("subject_id", Uuid, nullable=False),
    Column("checkout_id", Uuid, nullable=False),
    Column("cart_id", Uuid, nullable=False),
    Column("payment_id", Uuid, nullable=False),
    Column("currency", Text, nullable=False),
    Column("lines", JSONB, nullable=False),
    _bigint("subtotal_minor"),
    _bigint("discount_minor"),
    _bigint("shipping_minor"),
    _bigint("tax_minor"),
    _bigint("total_minor"),
    _bigint("captured_minor"),
    Column("placed_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("tenant_id", "number", name="customer_order_number"),
    UniqueConstraint("tenant_id", "checkout_id", name="customer_order_checkout"),
    CheckConstraint("state IN ('confirmed', 'canceled')", name="customer_order_state"),
    CheckConstraint(
        "subtotal_minor - discount_minor + shipping_minor + tax_minor = total_minor AND total_minor >= 0",
        name="customer_order_total",
    ),
    CheckConstraint("captured_minor BETWEEN 0 AND total_minor", name="customer_order_captured"),
    Index("customer_order_of_subject", "tenant_id", "subject_id", "number"),
)

STOCK = _aggregate(
    "stock",
    Column("sku", Text, nullable=False),
    _bigint("on_hand"),
    _bigint("reserved"),
    _bigint("sold"),
    _bigint("adjusted"),
    Column("levels", JSONB, nullable=False),
    _bigint("inventory_sequence"),
    CheckConstraint("on_hand >= 0 AND reserved >= 0 AND sold >= 0", name="stock_never_negative"),
    CheckConstraint("adjusted = on_hand + reserved + sold", name="stock_conserved"),
)

ORDER_COUNTER = Table(
    "order_counter",
    METADATA,
    Column("tenant_id", Uuid, nullable=False),
    _bigint("version"),
    _bigint("sequence"),
    _bigint("last_number"),
    PrimaryKeyConstraint("tenant_id", name="order_counter_pkey"),
)
