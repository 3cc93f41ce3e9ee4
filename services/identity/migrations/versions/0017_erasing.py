"""The kernel's next step: tenants that are erased, and what is left of them here."""

from alembic import op

from libs.common.messaging.schema import erasable, kernel_v11

revision = "0017"
down_revision = "0016"

TABLES = (
    "api_key",
    "authorization_code",
    "client",
    "epoch",
    "invitation",
    "member",
    "password_reset",
    "role",
    "second_factor",
    "service_secret",
    "session",
    "signing_key",
    "staff",
    "tenant",
)
"""What identity keeps of tenants."""

# Nobody was ever `closed`: what comes after closing has two names now. An erased tenant has no slug, and its old one is free.
TENANT = (
    """ALTER TABLE tenant
        ADD COLUMN settled_by jsonb NOT NULL DEFAULT '[]',
        ADD COLUMN erased_by jsonb NOT NULL DEFAULT '{}',
        ADD COLUMN erased_at timestamptz,
        ADD COLUMN export_sha256 text,
        DROP CONSTRAINT tenant_status,
        DROP CONSTRAINT tenant_slug,
        ADD CONSTRAINT tenant_status
            CHECK (status IN ('provisioning', 'active', 'suspended', 'closing', 'erasing', 'erased')),
        ADD CONSTRAINT tenant_slug CHECK (slug ~ '^[a-z0-9][a-z0-9-]{1,62}$' OR (status = 'erased' AND slug = '')),
        ADD CONSTRAINT tenant_erased CHECK (
            (status = 'erased') = (erased_at IS NOT NULL) AND (erased_at IS NULL) = (export_sha256 IS NULL)
            AND (status <> 'erased' OR slug || name || admin_email = '')
        )""",
    "DROP INDEX tenant_slug_taken",
    "CREATE UNIQUE INDEX tenant_slug_taken ON tenant (slug) WHERE slug <> ''",
)


def upgrade() -> None:
    """Expand only."""
    for statement in (*kernel_v11("identity"), *erasable("identity", *TABLES), *TENANT):
        op.execute(statement)
