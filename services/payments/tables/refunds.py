"""Refunds: what is given back of a payment, each bounded by what the payment has reserved for it."""

from sqlalchemy import BigInteger, CheckConstraint, ForeignKeyConstraint, Index, Integer, Text, UniqueConstraint, Uuid, text

from libs.common.database.tables import MOMENT, aggregate, optional, required
from services.payments.tables.metadata import METADATA
from services.payments.tables.payments import PAYMENT

REFUND = aggregate(
    METADATA,
    "refund",
    "id",
    *required(Uuid, "payment_id", "checkout_id", "order_id"),
    *required(BigInteger, "amount_minor"),
    *required(Text, "currency", "reason", "state"),
    *optional(Text, "provider_id", "failure_code"),
    *required(Integer, "attempt"),
    *required(MOMENT, "asked_at"),
    *required(Integer, "looks"),
    *optional(MOMENT, "due_at"),
    *required(MOMENT, "created_at"),
    *optional(MOMENT, "closed_at"),
    *optional(Text, "closed_by", "closed_reason"),
    ForeignKeyConstraint(["tenant_id", "payment_id"], ["payment.tenant_id", "payment.id"], name="refund_of_payment"),
    UniqueConstraint("tenant_id", "provider_id", name="refund_of_provider"),
    CheckConstraint("state IN ('requested', 'unknown', 'pending', 'succeeded', 'failed', 'canceled')", name="refund_state"),
    CheckConstraint("amount_minor > 0 OR (amount_minor = 0 AND state = 'failed')", name="refund_amount"),
    CheckConstraint("char_length(currency) = 3", name="refund_currency"),
    CheckConstraint("(state IN ('failed', 'canceled')) = (failure_code IS NOT NULL)", name="refund_failed"),
    CheckConstraint("provider_id IS NOT NULL OR state NOT IN ('pending', 'succeeded')", name="refund_provider"),
    CheckConstraint("(state IN ('requested', 'unknown', 'pending')) = (due_at IS NOT NULL)", name="refund_due"),
    CheckConstraint("attempt >= 1 AND looks >= 0", name="refund_counts"),
    CheckConstraint(
        "(closed_at IS NULL) = (closed_by IS NULL) AND (closed_at IS NULL) = (closed_reason IS NULL) "
        "AND (closed_at IS NULL OR state IN ('failed', 'canceled'))",
        name="refund_closed",
    ),
    Index("refund_by_payment", "tenant_id", "payment_id"),
    Index("refund_of_time", "tenant_id", "created_at", "id"),
    Index("refund_due_at", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index(
        "refund_failed_open",
        "tenant_id",
        "created_at",
        "id",
        postgresql_where=text("state IN ('failed', 'canceled') AND closed_at IS NULL"),
    ),
)

ORPHANED = "captured_minor > refunding_minor + refunded_minor AND order_standing <> 'confirmed'"
"""Money of ours that belongs to no order: the same predicate in the index, the policy and the functions that look for it."""

Index("payment_orphaned", PAYMENT.c.created_at, postgresql_where=text(ORPHANED))
Index(
    "payment_without_order",
    PAYMENT.c.tenant_id,
    PAYMENT.c.created_at,
    PAYMENT.c.id,
    postgresql_where=text(f"{ORPHANED} AND order_asked_at IS NOT NULL"),
)
