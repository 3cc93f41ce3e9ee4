"""Payments, and the operations asked of the provider."""

from sqlalchemy import (
    BigInteger,
    Boolean,
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
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.database import tenant_table
from services.payments.tables.metadata import METADATA

TENANT = tenant_table(METADATA)

PAYMENT = Table(
    "payment",
    METADATA,
    Column("tenant_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("checkout_id", Uuid, nullable=False),
    Column("order_id", Uuid, nullable=False),
    Column("subject_id", Uuid, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("capture", Text, nullable=False),
    Column("quote_hash", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("intent_id", Text),
    Column("authorized_minor", BigInteger, nullable=False),
    Column("captured_minor", BigInteger, nullable=False),
    Column("decline_code", Text),
    Column("expires_at", DateTime(timezone=True)),
    Column("requested_capture", Boolean, nullable=False),
    Column("void_reason", Text),
    Column("created_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("tenant_id", "id", name="payment_pkey"),
    CheckConstraint(
        "state IN ('created', 'authorizing', 'requires_action', 'authorized', 'capturing', 'captured', 'voiding', "
        "'voided', 'declined', 'expired', 'unknown')",
        name="payment_state",
    ),
    CheckConstraint("amount_minor > 0 OR (amount_minor = 0 AND state IN ('voided', 'declined'))", name="payment_amount"),
    CheckConstraint("char_length(currency) = 3 AND (currency <> 'XXX' OR amount_minor = 0)", name="payment_currency"),
    CheckConstraint("capture IN ('on-confirmation', 'on-shipment')", name="payment_capture"),
    CheckConstraint(
        "0 <= captured_minor AND captured_minor <= authorized_minor AND authorized_minor <= amount_minor",
        name="payment_captured_within_authorized_within_amount",
    ),
    CheckConstraint("authorized_minor > 0 OR state NOT IN ('authorized', 'capturing', 'captured')", name="payment_authorized"),
    CheckConstraint("(state = 'captured') = (captured_minor > 0)", name="payment_captured"),
    CheckConstraint("(state = 'declined') = (decline_code IS NOT NULL)", name="payment_declined"),
    CheckConstraint(
        "intent_id IS NOT NULL OR state IN ('created', 'authorizing', 'voided', 'declined', 'unknown')",
        name="payment_intent",
    ),
    Index("payment_of_checkout", "tenant_id", "checkout_id"),
    Index("payment_of_order", "tenant_id", "order_id"),
    Index("payment_of_subject", "tenant_id", "subject_id", "id"),
)

OPERATION = Table(
    "operation",
    METADATA,
    Column("tenant_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("payment_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("request", JSONB, nullable=False),
    Column("state", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("first_send_at", DateTime(timezone=True), nullable=False),
    Column("due_at", DateTime(timezone=True)),
    Column("outcome", JSONB),
    Column("traceparent", Text),
    PrimaryKeyConstraint("tenant_id", "id", name="operation_pkey"),
    ForeignKeyConstraint(["tenant_id", "payment_id"], ["payment.tenant_id", "payment.id"], name="operation_of_payment"),
    UniqueConstraint("tenant_id", "payment_id", "kind", "attempt", name="operation_attempt"),
    CheckConstraint("kind IN ('create', 'confirm', 'capture', 'cancel')", name="operation_kind"),
    CheckConstraint("state IN ('sending', 'unknown', 'succeeded', 'declined', 'rejected')", name="operation_state"),
    CheckConstraint("(state IN ('sending', 'unknown')) = (due_at IS NOT NULL)", name="operation_due"),
    CheckConstraint("state IN ('sending', 'unknown') OR outcome IS NOT NULL", name="operation_outcome"),
    CheckConstraint("attempt >= 1 AND tries >= 1", name="operation_tries"),
    CheckConstraint("idempotency_key = 'cartwright-' || id::text", name="operation_key"),
    # The promise that money moves once begins here: a second call cannot even be planned while one is open.
    Index(
        "operation_open",
        "tenant_id",
        "payment_id",
        unique=True,
        postgresql_where=text("state IN ('sending', 'unknown')"),
    ),
    Index("operation_due_at", "due_at", postgresql_where=text("due_at IS NOT NULL")),
)
