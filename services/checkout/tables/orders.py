"""Orders, and the counter of their numbers."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
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

from libs.common.database.tables import MOMENT, aggregate, optional, required
from services.checkout.tables.metadata import METADATA

ORDER = aggregate(
    METADATA,
    "customer_order",
    "id",
    *required(BigInteger, "number"),
    *required(Text, "state"),
    *optional(Text, "reason"),
    *required(Text, "payment_state", "fulfilment_state"),
    *required(Uuid, "subject_id", "checkout_id", "cart_id", "payment_id"),
    *required(Text, "currency"),
    *required(JSONB, "lines"),
    *required(BigInteger, "subtotal_minor", "discount_minor", "shipping_minor", "tax_minor", "total_minor"),
    *required(Boolean, "tax_included", default="false"),
    *required(JSONB, "discounts", default="[]"),
    *optional(Text, "shipping_method"),
    *optional(JSONB, "shipping_address"),
    *optional(Text, "quote_hash"),
    *required(BigInteger, "captured_minor"),
    *required(BigInteger, "refunding_minor", "refunded_minor", default=text("0")),
    *required(JSONB, "disputes", "progress", "shipments", "returns", default="{}"),
    *required(JSONB, "allocations", default="[]"),
    *required(MOMENT, "placed_at"),
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
    Index("customer_order_by_state", "tenant_id", "state", "number"),
    Index("customer_order_by_payment_state", "tenant_id", "payment_state", "number"),
    Index("customer_order_by_time", "tenant_id", "placed_at"),
)

ORDER_TERM = Table(
    "order_term",
    METADATA,
    *required(Uuid, "tenant_id"),
    *required(Text, "kind", "term"),
    *required(BigInteger, "number"),
    PrimaryKeyConstraint("tenant_id", "kind", "term", "number", name="order_term_pkey"),
    CheckConstraint("kind IN ('sku', 'email')", name="order_term_kind"),
)
"""What orders are found by besides: the database itself writes it beside each."""

ORDER_COUNTER = Table(
    "order_counter",
    METADATA,
    *required(Uuid, "tenant_id"),
    *required(BigInteger, "version", "sequence", "last_number"),
    PrimaryKeyConstraint("tenant_id", name="order_counter_pkey"),
)


def _of_order(table: str) -> ForeignKeyConstraint:
    columns = ["tenant_id", "order_id"]
    return ForeignKeyConstraint(columns, ["customer_order.tenant_id", "customer_order.id"], name=f"{table}_of_order")


REFUND = aggregate(
    METADATA,
    "refund",
    "id",
    *required(Uuid, "order_id", "payment_id"),
    *required(Text, "state"),
    *optional(Text, "code"),
    *required(BigInteger, "amount_minor"),
    *required(Text, "currency"),
    *required(JSONB, "lines"),
    *required(Boolean, "restock", "is_restocked"),
    *required(Text, "reason"),
    *required(MOMENT, "requested_at"),
    _of_order("refund"),
    CheckConstraint("state IN ('requested', 'pending', 'succeeded', 'failed')", name="refund_state"),
    CheckConstraint("amount_minor > 0", name="refund_amount"),
    CheckConstraint("(state = 'failed') = (code IS NOT NULL)", name="refund_code"),
    CheckConstraint("restock OR NOT is_restocked", name="refund_restocked"),
    Index("refund_of_order_by_id", "tenant_id", "order_id", "id"),
)

NOTE = aggregate(
    METADATA,
    "order_note",
    "id",
    *required(Uuid, "order_id"),
    *required(Text, "body", "author"),
    *required(MOMENT, "written_at"),
    _of_order("order_note"),
    Index("order_note_of_order_by_id", "tenant_id", "order_id", "id"),
)
