"""Orders, and the counter of their numbers."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from services.checkout.tables.metadata import METADATA, aggregate, bigint

ORDER = aggregate(
    "customer_order",
    Column("id", Uuid, nullable=False),
    bigint("number"),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("payment_state", Text, nullable=False),
    Column("fulfilment_state", Text, nullable=False),
    Column("subject_id", Uuid, nullable=False),
    Column("checkout_id", Uuid, nullable=False),
    Column("cart_id", Uuid, nullable=False),
    Column("payment_id", Uuid, nullable=False),
    Column("currency", Text, nullable=False),
    Column("lines", JSONB, nullable=False),
    bigint("subtotal_minor"),
    bigint("discount_minor"),
    bigint("shipping_minor"),
    bigint("tax_minor"),
    bigint("total_minor"),
    Column("tax_included", Boolean, nullable=False, server_default="false"),
    Column("shipping_method", Text),
    Column("shipping_address", JSONB),
    Column("quote_hash", Text),
    bigint("captured_minor"),
    Column("refunding_minor", BigInteger, nullable=False, server_default=text("0")),
    Column("refunded_minor", BigInteger, nullable=False, server_default=text("0")),
    Column("disputes", JSONB, nullable=False, server_default="{}"),
    Column("progress", JSONB, nullable=False, server_default="{}"),
    Column("shipments", JSONB, nullable=False, server_default="{}"),
    Column("returns", JSONB, nullable=False, server_default="{}"),
    Column("allocations", JSONB, nullable=False, server_default="[]"),
    Column("placed_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("tenant_id", "number", name="customer_order_number"),
    UniqueConstraint("tenant_id", "checkout_id", name="customer_order_checkout"),
    CheckConstraint("state IN ('confirmed', 'canceled')", name="customer_order_state"),
    CheckConstraint(
        "subtotal_minor - discount_minor + shipping_minor + CASE WHEN tax_included THEN 0 ELSE tax_minor END = total_minor "
        "AND total_minor >= 0",
        name="customer_order_total",
    ),
    CheckConstraint("(state = 'canceled') = (reason IS NOT NULL)", name="customer_order_reason"),
    CheckConstraint(
        "payment_state IN ('none', 'authorized', 'captured', 'partially_refunded', 'refunded', 'disputed')",
        name="customer_order_payment_state",
    ),
    CheckConstraint(
        "fulfilment_state IN ('unfulfilled', 'partially_fulfilled', 'fulfilled', 'delivered', 'returned')",
        name="customer_order_fulfilment_state",
    ),
    # No upper bounds: what the provider took and gave back are facts, and a fact is not to be refused.
    CheckConstraint("refunding_minor >= 0 AND refunded_minor >= 0", name="customer_order_refunded"),
    CheckConstraint("captured_minor >= 0", name="customer_order_captured"),
    Index("customer_order_of_subject", "tenant_id", "subject_id", "number"),
)

ORDER_COUNTER = Table(
    "order_counter",
    METADATA,
    Column("tenant_id", Uuid, nullable=False),
    bigint("version"),
    bigint("sequence"),
    bigint("last_number"),
    PrimaryKeyConstraint("tenant_id", name="order_counter_pkey"),
)


def _of_order(table: str) -> ForeignKeyConstraint:
    columns = ["tenant_id", "order_id"]
    return ForeignKeyConstraint(columns, ["customer_order.tenant_id", "customer_order.id"], name=f"{table}_of_order")


REFUND = aggregate(
    "refund",
    Column("id", Uuid, nullable=False),
    Column("order_id", Uuid, nullable=False),
    Column("payment_id", Uuid, nullable=False),
    Column("state", Text, nullable=False),
    Column("code", Text),
    bigint("amount_minor"),
    Column("currency", Text, nullable=False),
    Column("lines", JSONB, nullable=False),
    Column("restock", Boolean, nullable=False),
    Column("is_restocked", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    _of_order("refund"),
    CheckConstraint("state IN ('requested', 'pending', 'succeeded', 'failed')", name="refund_state"),
    CheckConstraint("amount_minor > 0", name="refund_amount"),
    CheckConstraint("(state = 'failed') = (code IS NOT NULL)", name="refund_code"),
    CheckConstraint("restock OR NOT is_restocked", name="refund_restocked"),
    Index("refund_of_order_by_id", "tenant_id", "order_id", "id"),
)

NOTE = aggregate(
    "order_note",
    Column("id", Uuid, nullable=False),
    Column("order_id", Uuid, nullable=False),
    Column("body", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("written_at", DateTime(timezone=True), nullable=False),
    _of_order("order_note"),
    Index("order_note_of_order_by_id", "tenant_id", "order_id", "id"),
)
