"""The identity service's tables. The tenant leads every key; what is the platform's own stands under the nil UUID."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

METADATA = MetaData()

TENANT = Table(
    "tenant",
    METADATA,
    Column("tenant_id", Uuid, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("slug", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("country", Text, nullable=False),
    Column("admin_email", Text, nullable=False),
    Column("provisioned", JSONB, nullable=False),
    Column("settings", JSONB, nullable=False, server_default="{}"),
    PrimaryKeyConstraint("tenant_id", name="tenant_pkey"),
    CheckConstraint("status IN ('provisioning', 'active', 'suspended', 'closing', 'closed')", name="tenant_status"),
    CheckConstraint("slug ~ '^[a-z0-9][a-z0-9-]{1,62}$'", name="tenant_slug"),
)
# A slug names one tenant of all: the only key without a tenant. Only the platform can make one, so only it learns of others.
Index("tenant_slug_taken", TENANT.c.slug, unique=True)

CLIENT = Table(
    "client",
    METADATA,
    Column("tenant_id", Uuid, nullable=False),
    Column("id", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("subject_id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", JSONB, nullable=False),
    Column("secrets", JSONB, nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("tenant_id", "id", name="client_pkey"),
    CheckConstraint("jsonb_array_length(secrets) <= 2", name="client_secrets"),
    CheckConstraint("deleted_at IS NULL OR jsonb_array_length(secrets) = 0", name="client_deleted"),
)

SESSION = Table(
    "session",
    METADATA,
    Column("tenant_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("subject_id", Uuid, nullable=False),
    Column("is_guest", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("previous_digest", Text),
    Column("rotated_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("tenant_id", "id", name="session_pkey"),
    ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name="session_tenant"),
    CheckConstraint("state IN ('live', 'ended')", name="session_state"),
)

SIGNING_KEY = Table(
    "signing_key",
    METADATA,
    Column("tenant_id", Uuid, nullable=False),
    Column("kid", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("jwk", JSONB, nullable=False),
    Column("sealed_private_key", LargeBinary, nullable=False),
    Column("not_before", DateTime(timezone=True), nullable=False),
    Column("not_after", DateTime(timezone=True)),
    PrimaryKeyConstraint("tenant_id", "kid", name="signing_key_pkey"),
    CheckConstraint("state IN ('next', 'active', 'retired')", name="signing_key_state"),
    CheckConstraint("NOT jwk ? 'd'", name="signing_key_is_public"),
)
Index("signing_key_one_active", SIGNING_KEY.c.tenant_id, unique=True, postgresql_where=SIGNING_KEY.c.state == "active")
