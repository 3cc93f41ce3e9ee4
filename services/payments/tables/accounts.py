"""The tenants' own provider accounts, their secrets sealed."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from services.payments.tables.metadata import METADATA

PROVIDER_ACCOUNT = Table(
    "provider_account",
    METADATA,
    Column("tenant_id", Uuid, nullable=False),
    Column("provider", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("account_id", Text),
    Column("sealed_api_key", LargeBinary),
    Column("api_key_hint", Text),
    Column("webhook_secrets", JSONB, nullable=False),
    Column("master_key_id", Text, nullable=False),
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("livemode", Boolean, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("rotated_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("tenant_id", "provider", name="provider_account_pkey"),
    CheckConstraint("provider = 'stripe'", name="provider_account_provider"),
    CheckConstraint("(sealed_api_key IS NULL) = (api_key_hint IS NULL)", name="provider_account_key"),
    CheckConstraint("char_length(api_key_hint) <= 4", name="provider_account_hint"),
    CheckConstraint("sealed_api_key IS NOT NULL OR account_id IS NOT NULL", name="provider_account_named"),
    CheckConstraint("jsonb_array_length(webhook_secrets) <= 2", name="provider_account_webhook_secrets"),
    # The platform's key acts for a connected account on behalf of one tenant, and of no second one.
    Index("provider_account_account_taken", "account_id", unique=True, postgresql_where=text("sealed_api_key IS NULL")),
)
