"""Disputes: the cases that buyers' banks open, and the money that each has moved."""

from sqlalchemy import (
    BigInteger,
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
)

from services.payments.tables.metadata import METADATA

DISPUTE = Table(
    "dispute",
    METADATA,
    Column("tenant_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("payment_id", Uuid, nullable=False),
    Column("checkout_id", Uuid, nullable=False),
    Column("order_id", Uuid, nullable=False),
    Column("provider_id", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("respond_by", DateTime(timezone=True)),
    Column("withdrawn_minor", BigInteger, nullable=False),
    Column("reinstated_minor", BigInteger, nullable=False),
    Column("fee_minor", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("tenant_id", "id", name="dispute_pkey"),
    ForeignKeyConstraint(["tenant_id", "payment_id"], ["payment.tenant_id", "payment.id"], name="dispute_of_payment"),
    UniqueConstraint("tenant_id", "provider_id", name="dispute_of_provider"),
    CheckConstraint(
        "state IN ('warning_needs_response', 'warning_under_review', 'warning_closed', 'needs_response', 'under_review', "
        "'won', 'lost', 'prevented')",
        name="dispute_state",
    ),
    CheckConstraint("amount_minor >= 0", name="dispute_amount"),
    CheckConstraint("char_length(currency) = 3", name="dispute_currency"),
    CheckConstraint("withdrawn_minor >= 0 AND reinstated_minor >= 0 AND fee_minor >= 0", name="dispute_money"),
    Index("dispute_by_payment", "tenant_id", "payment_id"),
)
