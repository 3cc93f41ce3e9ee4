"""What the provider told us by webhook: of each notice only what is needed to look again."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)

from services.payments.tables.metadata import METADATA

WEBHOOK_EVENT = Table(
    "webhook_event",
    METADATA,
    Column("tenant_id", Uuid, nullable=False),
    Column("id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("intent_id", Text),
    Column("payment_id", Uuid),
    Column("status", Text),
    Column("amount_minor", BigInteger),
    Column("livemode", Boolean, nullable=False),
    Column("account", Text),
    Column("occurred_at", DateTime(timezone=True), nullable=False),
    Column("received_at", DateTime(timezone=True), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", DateTime(timezone=True)),
    Column("result", Text),
    PrimaryKeyConstraint("tenant_id", "id", name="webhook_event_pkey"),
    CheckConstraint("subject IN ('intent', 'refund', 'dispute', 'other')", name="webhook_event_subject"),
    CheckConstraint("result IN ('observed', 'nothing-new', 'not-ours', 'of-no-interest', 'gone')", name="webhook_event_result"),
    CheckConstraint("(due_at IS NULL) = (result IS NOT NULL)", name="webhook_event_due"),
    CheckConstraint(
        "char_length(id) <= 255 AND char_length(type) <= 255 AND char_length(object_id) <= 255 "
        "AND char_length(intent_id) <= 255 AND char_length(account) <= 255 AND char_length(status) <= 255",
        name="webhook_event_bounded",
    ),
    Index("webhook_event_due_at", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index("webhook_event_received_at", "received_at"),
)
