"""Which accounts a tenant has proven to be its own, and the connections that are to prove one."""

from sqlalchemy import CheckConstraint, Index, LargeBinary, PrimaryKeyConstraint, Table, Text, Uuid

from libs.common.database.tables import MOMENT, optional, required
from services.payments.tables.metadata import METADATA

ACCOUNT_CONNECTION = Table(
    "account_connection",
    METADATA,
    *required(Uuid, "tenant_id"),
    *required(LargeBinary, "state_digest"),
    *required(Uuid, "subject_id"),
    *required(MOMENT, "created_at", "expires_at"),
    *optional(MOMENT, "used_at"),
    *optional(Text, "account_id"),
    PrimaryKeyConstraint("tenant_id", "state_digest", name="account_connection_pkey"),
    CheckConstraint("octet_length(state_digest) = 32", name="account_connection_digest"),
    CheckConstraint("account_id IS NULL OR used_at IS NOT NULL", name="account_connection_used"),
    CheckConstraint("char_length(account_id) <= 255", name="account_connection_bounded"),
    Index("account_connection_proven", "tenant_id", "account_id"),
)
