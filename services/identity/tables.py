"""The identity service's tables. The tenant leads every key; what is the platform's own stands under the nil UUID."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Date,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, ExcludeConstraint

from libs.common.cells import MAIN
from libs.common.database.holdings import Holdings, UnderWay
from libs.common.database.tables import MOMENT, aggregate, optional, required
from services.identity.domain.tenant import PROVISIONERS

METADATA = MetaData()

TENANT = aggregate(
    METADATA,
    "tenant",
    "tenant_id",
    *required(Text, "slug", "name", "status", "currency", "country", "admin_email"),
    *required(JSONB, "provisioned"),
    *required(JSONB, "settings", default="{}"),
    *required(Text, "cell", default=MAIN),
    *required(BigInteger, "told_version", default=text("0")),
    *required(JSONB, "acknowledged", default="[]"),
    *required(JSONB, "settled_by", default="[]"),
    *required(JSONB, "erased_by", default="{}"),
    *optional(MOMENT, "erased_at"),
    *optional(Text, "export_sha256"),
    CheckConstraint(
        "status IN ('provisioning', 'active', 'suspended', 'closing', 'erasing', 'erased')",
        name="tenant_status",
    ),
    CheckConstraint("slug ~ '^[a-z0-9][a-z0-9-]{1,62}$' OR (status = 'erased' AND slug = '')", name="tenant_slug"),
    CheckConstraint(
        "(status = 'erased') = (erased_at IS NOT NULL) AND (erased_at IS NULL) = (export_sha256 IS NULL)"
        " AND (status <> 'erased' OR slug || name || admin_email = '')",
        name="tenant_erased",
    ),
)
# A slug names one tenant of all: the only key without a tenant. Only the platform can make one, so only it learns of others.
Index("tenant_slug_taken", TENANT.c.slug, unique=True, postgresql_where=TENANT.c.slug != "")

CLIENT = aggregate(
    METADATA,
    "client",
    "id",
    *required(Uuid, "subject_id"),
    *required(Text, "name"),
    *required(JSONB, "scopes", "secrets"),
    *optional(MOMENT, "deleted_at"),
    *required(JSONB, "redirect_uris", default="[]"),
    *optional(Date, "last_used_on"),
    CheckConstraint("jsonb_array_length(secrets) <= 2", name="client_secrets"),
    CheckConstraint("deleted_at IS NULL OR jsonb_array_length(secrets) = 0", name="client_deleted"),
    CheckConstraint("jsonb_array_length(redirect_uris) = 0 OR jsonb_array_length(secrets) = 0", name="client_public"),
    kind=Text,
)

SESSION = aggregate(
    METADATA,
    "session",
    "id",
    *required(Uuid, "subject_id"),
    *required(Boolean, "is_guest"),
    *required(Text, "state", "digest"),
    *optional(Text, "previous_digest"),
    *required(BigInteger, "refresh_count", default=text("0")),
    *optional(Uuid, "former_subject_id"),
    *required(MOMENT, "rotated_at", "expires_at"),
    *optional(Text, "client_id"),
    *required(JSONB, "scopes", default="[]"),
    ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name="session_tenant"),
    CheckConstraint("state IN ('live', 'ended')", name="session_state"),
    Index("session_of_subject", "tenant_id", "subject_id", "id"),
)

SIGNING_KEY = aggregate(
    METADATA,
    "signing_key",
    "kid",
    *required(Text, "state"),
    *required(JSONB, "jwk"),
    *required(LargeBinary, "sealed_private_key"),
    *required(MOMENT, "not_before"),
    *optional(MOMENT, "not_after"),
    CheckConstraint("state IN ('next', 'active', 'retired', 'revoked')", name="signing_key_state"),
    CheckConstraint("(length(sealed_private_key) > 0) = (state IN ('next', 'active'))", name="signing_key_signs"),
    CheckConstraint("NOT jwk ? 'd'", name="signing_key_is_public"),
    # One of each. Two change places in one statement, and a unique index would look between them.
    ExcludeConstraint(
        ("tenant_id", "="),
        ("state", "="),
        where=text("state IN ('next', 'active')"),
        using="btree",
        deferrable=True,
        name="signing_key_one_of_each",
    ),
    kind=Text,
)

EPOCH = aggregate(
    METADATA,
    "epoch",
    "id",
    *required(Text, "kind"),
    *required(BigInteger, "epoch_ms"),
    CheckConstraint("kind IN ('tenant', 'subject', 'session', 'client')", name="epoch_kind"),
    Index("epoch_live", "epoch_ms"),
    kind=Text,
)

SERVICE_SECRET = aggregate(METADATA, "service_secret", "name", *required(LargeBinary, "sealed"), kind=Text)

API_KEY = aggregate(
    METADATA,
    "api_key",
    "id",
    *required(Text, "name"),
    *required(JSONB, "scopes"),
    *required(Text, "digest"),
    *required(MOMENT, "created_at", "expires_at"),
    *optional(Date, "last_used_on"),
    *optional(MOMENT, "deleted_at"),
    ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name="api_key_tenant"),
    CheckConstraint("expires_at > created_at", name="api_key_ends"),
)

STAFF = aggregate(
    METADATA,
    "staff",
    "tenant_id",
    *required(BigInteger, "owners"),
    *required(JSONB, "uses"),
    ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name="staff_tenant"),
    CheckConstraint("owners >= 0", name="staff_owners"),
)

ROLE = aggregate(
    METADATA,
    "role",
    "name",
    *required(Text, "description"),
    *required(JSONB, "permissions"),
    *optional(MOMENT, "deleted_at"),
    ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name="role_tenant"),
    CheckConstraint("name ~ '^[a-z][a-z0-9-]{0,62}$'", name="role_name"),
    CheckConstraint("deleted_at IS NULL OR jsonb_array_length(permissions) = 0", name="role_deleted"),
    kind=Text,
)

MEMBER = aggregate(
    METADATA,
    "member",
    "id",
    *required(Text, "email", "email_key", "name"),
    *required(JSONB, "roles"),
    *required(Text, "state"),
    *optional(Text, "password"),
    *required(MOMENT, "joined_at"),
    *optional(MOMENT, "deleted_at"),
    ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name="member_tenant"),
    CheckConstraint("state IN ('active', 'deactivated', 'removed')", name="member_state"),
    CheckConstraint("(state = 'removed') = (deleted_at IS NOT NULL)", name="member_removed"),
    CheckConstraint("deleted_at IS NULL OR (password IS NULL AND jsonb_array_length(roles) = 0)", name="member_rights"),
)
# One account an address and tenant; that of a removed member is free again.
Index(
    "member_email_taken",
    MEMBER.c.tenant_id,
    MEMBER.c.email_key,
    unique=True,
    postgresql_where=MEMBER.c.deleted_at.is_(None),
)

INVITATION = aggregate(
    METADATA,
    "invitation",
    "id",
    *required(Text, "email", "email_key"),
    *required(JSONB, "roles"),
    *required(Text, "state", "nonce", "digest"),
    *required(MOMENT, "expires_at"),
    ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name="invitation_tenant"),
    CheckConstraint("state IN ('open', 'accepted', 'revoked')", name="invitation_state"),
)
Index(
    "invitation_already_open",
    INVITATION.c.tenant_id,
    INVITATION.c.email_key,
    unique=True,
    postgresql_where=INVITATION.c.state == "open",
)

AUTHORIZATION_CODE = aggregate(
    METADATA,
    "authorization_code",
    "id",
    *required(Text, "digest"),
    *required(Uuid, "member_id"),
    *required(Text, "client_id", "redirect_uri", "challenge"),
    *required(JSONB, "scopes"),
    *required(MOMENT, "expires_at"),
    *optional(Uuid, "session_id"),
    ForeignKeyConstraint(["tenant_id", "member_id"], ["member.tenant_id", "member.id"], name="authorization_code_member"),
)

SECOND_FACTOR = aggregate(
    METADATA,
    "second_factor",
    "member_id",
    *required(Uuid, "enrolment"),
    *required(Text, "state"),
    *optional(LargeBinary, "sealed_secret"),
    *required(BigInteger, "last_step"),
    *required(JSONB, "recovery"),
    ForeignKeyConstraint(["tenant_id", "member_id"], ["member.tenant_id", "member.id"], name="second_factor_member"),
    CheckConstraint("state IN ('pending', 'active', 'removed')", name="second_factor_state"),
    CheckConstraint("(state = 'removed') = (sealed_secret IS NULL)", name="second_factor_secret"),
    CheckConstraint("state = 'active' OR jsonb_array_length(recovery) = 0", name="second_factor_recovery"),
)

PASSWORD_RESET = aggregate(
    METADATA,
    "password_reset",
    "member_id",
    *required(Text, "state", "digest"),
    *required(MOMENT, "asked_at"),
    ForeignKeyConstraint(["tenant_id", "member_id"], ["member.tenant_id", "member.id"], name="password_reset_member"),
    CheckConstraint("state IN ('open', 'used')", name="password_reset_state"),
)

HOLDINGS = Holdings(
    metadata=METADATA,
    withheld={
        "api_key": ["digest"],
        "client": ["secrets"],
        "session": ["digest", "previous_digest"],
        "member": ["password"],
        "invitation": ["nonce", "digest"],
    },
    left_out=["authorization_code", "password_reset", "second_factor", "service_secret", "signing_key", "epoch"],
    under_way=[UnderWay("tenant", f"NOT erased_by ?& ARRAY{[*PROVISIONERS]}")],
    tombstone="tenant",
)
"""What proves who somebody is is in no export; nor are codes that live for a minute or an hour, what they are made with, until
when tokens are over, and the platform's own secrets. This service is the last: the others must have said their word."""
