"""Refunds: what is given back of a payment, each bounded by what the payment has reserved for it."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from services.payments.tables.metadata import METADATA
from services.payments.tables.payments import PAYMENT

REFUND = Table(
    "refund",
    METADATA,
    Column("tenant_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("payment_id", Uuid, nullable=False),
    Column("checkout_id", Uuid, nullable=False),
    Column("order_id", Uuid, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("provider_id", Text),
    Column("failure_code", Text),
    Column("attempt", Integer, nullable=False),
    Column("asked_at", DateTime(timezone=True), nullable=False),
    Column("looks", Integer, nullable=False),
    Column("due_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("tenant_id", "id", name="refund_pkey"),
    ForeignKeyConstraint(["tenant_id", "payment_id"], ["payment.tenant_id", "payment.id"], name="refund_of_payment"),
    UniqueConstraint("tenant_id", "provider_id", name="refund_of_provider"),
    CheckConstraint("state IN ('requested', 'unknown', 'pending', 'succeeded', 'failed', 'canceled')", name="refund_state"),
    CheckConstraint("amount_minor > 0 OR (amount_minor = 0 AND state = 'failed')", name="refund_amount"),
    CheckConstraint("char_length(currency) = 3", name="refund_currency"),
    CheckConstraint("(state IN ('failed', 'canceled')) = (failure_code IS NOT NULL)", name="refund_failed"),
    CheckConstraint("provider_id IS NOT NULL OR state NOT IN ('pending', 'succeeded')", name="refund_provider"),
    CheckConstraint("(state IN ('requested', 'unknown', 'pending')) = (due_at IS NOT NULL)", name="refund_due"),
    CheckConstraint("attempt >= 1 AND looks >= 0", name="refund_counts"),
    Index("refund_by_payment", "tenant_id", "payment_id"),
    Index("refund_of_time", "tenant_id", "created_at", "id"),
    Index("refund_due_at", "due_at", postgresql_where=text("due_at IS NOT NULL")),
)

ORPHANED = "captured_minor > refunding_minor + refunded_minor AND order_standing <> 'confirmed'"
"""Money of ours that belongs to no order: the same predicate in the index, the policy and the functions that look for it."""

Index("payment_orphaned", PAYMENT.c.created_at, postgresql_where=text(ORPHANED))
