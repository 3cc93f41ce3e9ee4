"""Tenants, clients, sessions, signing keys, and the messaging kernel; row-level security from the start."""

from alembic import op

from libs.common.clock import PLATFORM
from libs.common.messaging.schema import kernel_v1
from libs.common.tenancy import SETTING, TENANT_IS_PRESENT, protect

revision = "0001"
down_revision = None

TABLES = (
    """CREATE TABLE tenant (
        tenant_id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        slug text NOT NULL,
        name text NOT NULL,
        status text NOT NULL,
        currency text NOT NULL,
        country text NOT NULL,
        admin_email text NOT NULL,
        provisioned jsonb NOT NULL,
        CONSTRAINT tenant_pkey PRIMARY KEY (tenant_id),
        CONSTRAINT tenant_status CHECK (status IN ('provisioning', 'active', 'suspended', 'closing', 'closed')),
        CONSTRAINT tenant_slug CHECK (slug ~ '^[a-z0-9][a-z0-9-]{1,62}$')
    )""",
    "CREATE UNIQUE INDEX tenant_slug_taken ON tenant (slug)",
    """CREATE TABLE client (
        tenant_id uuid NOT NULL,
        id text NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        subject_id uuid NOT NULL,
        name text NOT NULL,
        scopes jsonb NOT NULL,
        secrets jsonb NOT NULL,
        deleted_at timestamptz,
        CONSTRAINT client_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT client_secrets CHECK (jsonb_array_length(secrets) <= 2),
        CONSTRAINT client_deleted CHECK (deleted_at IS NULL OR jsonb_array_length(secrets) = 0)
    )""",
    """CREATE TABLE session (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        subject_id uuid NOT NULL,
        is_guest boolean NOT NULL,
        state text NOT NULL,
        digest text NOT NULL,
        previous_digest text,
        rotated_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        CONSTRAINT session_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT session_tenant FOREIGN KEY (tenant_id) REFERENCES tenant (tenant_id),
        CONSTRAINT session_state CHECK (state IN ('live', 'ended'))
    )""",
    """CREATE TABLE signing_key (
        tenant_id uuid NOT NULL,
        kid text NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        state text NOT NULL,
        jwk jsonb NOT NULL,
        sealed_private_key bytea NOT NULL,
        not_before timestamptz NOT NULL,
        not_after timestamptz,
        CONSTRAINT signing_key_pkey PRIMARY KEY (tenant_id, kid),
        CONSTRAINT signing_key_state CHECK (state IN ('next', 'active', 'retired')),
        CONSTRAINT signing_key_is_public CHECK (NOT jwk ? 'd')
    )""",
    "CREATE UNIQUE INDEX signing_key_one_active ON signing_key (tenant_id) WHERE state = 'active'",
)

# The platform lists every tenant, and row-level security shows a transaction only those it names. So this function says
# which there are, by id alone and to the platform's own transactions alone; each is then read under its own name.
LIST_TENANTS = f"""CREATE FUNCTION tenant_ids_for_platform(after uuid, at_most int, wanted_slug text) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT tenant_id FROM tenant
    WHERE current_setting('{SETTING}', true) = '{PLATFORM}'
        AND tenant_id > after AND (wanted_slug IS NULL OR slug = wanted_slug)
    ORDER BY tenant_id LIMIT at_most
$$"""  # noqa: S608 - names and constants of our own

FOR_THE_PLATFORM = (
    # The listing function runs as the owner, who under forced security would otherwise see nothing.
    "CREATE POLICY owner_lists_all ON tenant FOR SELECT TO identity_owner USING (true)",
    LIST_TENANTS,
    "REVOKE ALL ON FUNCTION tenant_ids_for_platform(uuid, int, text) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION tenant_ids_for_platform(uuid, int, text) TO identity_app",
    # `migrate` makes the first operator as the owner, who may touch the platform's clients and nobody else's.
    f"""CREATE POLICY owner_makes_operators ON client TO identity_owner
        USING ({TENANT_IS_PRESENT} AND tenant_id = '{PLATFORM}'::uuid)
        WITH CHECK ({TENANT_IS_PRESENT} AND tenant_id = '{PLATFORM}'::uuid)""",
)


def upgrade() -> None:
    """Make everything."""
    for statement in (*kernel_v1("identity"), *TABLES):
        op.execute(statement)
    for table in ("tenant", "client", "session", "signing_key"):
        for statement in protect(table, "identity_app", privileges="SELECT, INSERT, UPDATE"):
            op.execute(statement)
    for statement in FOR_THE_PLATFORM:
        op.execute(statement)
