"""The tenants' own provider accounts, their secrets sealed."""

from sqlalchemy import Boolean, CheckConstraint, Index, LargeBinary, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.database.tables import MOMENT, aggregate, optional, required
from services.payments.tables.metadata import METADATA

PROVIDER_ACCOUNT = aggregate(
    METADATA,
    "provider_account",
    "provider",
    *optional(Text, "account_id"),
    *optional(LargeBinary, "sealed_api_key"),
    *optional(Text, "api_key_hint"),
    *required(JSONB, "webhook_secrets"),
    *required(Text, "master_key_id"),
    *required(LargeBinary, "wrapped_key"),
    *required(Boolean, "livemode"),
    *required(MOMENT, "created_at", "rotated_at"),
    CheckConstraint("provider = 'stripe'", name="provider_account_provider"),
    CheckConstraint("(sealed_api_key IS NULL) = (api_key_hint IS NULL)", name="provider_account_key"),
    CheckConstraint("char_length(api_key_hint) <= 4", name="provider_account_hint"),
    CheckConstraint("sealed_api_key IS NOT NULL OR account_id IS NOT NULL", name="provider_account_named"),
    CheckConstraint("jsonb_array_length(webhook_secrets) <= 2", name="provider_account_webhook_secrets"),
    # The platform's key acts for a connected account on behalf of one tenant, and of no second one.
    Index("provider_account_account_taken", "account_id", unique=True, postgresql_where=text("sealed_api_key IS NULL")),
    kind=Text,
)
