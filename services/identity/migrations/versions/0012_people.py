"""Staff: members, their roles and invitations, what is counted of them, and how they sign in."""

from alembic import op

from libs.common.tenancy import protect

revision = "0012"
down_revision = "0011"

TABLES = (
    """CREATE TABLE staff (
        tenant_id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        owners bigint NOT NULL,
        uses jsonb NOT NULL,
        CONSTRAINT staff_pkey PRIMARY KEY (tenant_id),
        CONSTRAINT staff_tenant FOREIGN KEY (tenant_id) REFERENCES tenant (tenant_id),
        CONSTRAINT staff_owners CHECK (owners >= 0)
    )""",
    """CREATE TABLE role (
        tenant_id uuid NOT NULL,
        name text NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        description text NOT NULL,
        permissions jsonb NOT NULL,
        deleted_at timestamptz,
        CONSTRAINT role_pkey PRIMARY KEY (tenant_id, name),
        CONSTRAINT role_tenant FOREIGN KEY (tenant_id) REFERENCES tenant (tenant_id),
        CONSTRAINT role_name CHECK (name ~ '^[a-z][a-z0-9-]{0,62}$'),
        CONSTRAINT role_deleted CHECK (deleted_at IS NULL OR jsonb_array_length(permissions) = 0)
    )""",
    """CREATE TABLE member (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        email text NOT NULL,
        email_key text NOT NULL,
        name text NOT NULL,
        roles jsonb NOT NULL,
        state text NOT NULL,
        password text,
        joined_at timestamptz NOT NULL,
        deleted_at timestamptz,
        CONSTRAINT member_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT member_tenant FOREIGN KEY (tenant_id) REFERENCES tenant (tenant_id),
        CONSTRAINT member_state CHECK (state IN ('active', 'deactivated', 'removed')),
        CONSTRAINT member_removed CHECK ((state = 'removed') = (deleted_at IS NOT NULL)),
        CONSTRAINT member_rights CHECK (deleted_at IS NULL OR (password IS NULL AND jsonb_array_length(roles) = 0))
    )""",
    "CREATE UNIQUE INDEX member_email_taken ON member (tenant_id, email_key) WHERE deleted_at IS NULL",
    """CREATE TABLE invitation (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        email text NOT NULL,
        email_key text NOT NULL,
        roles jsonb NOT NULL,
        state text NOT NULL,
        nonce text NOT NULL,
        digest text NOT NULL,
        expires_at timestamptz NOT NULL,
        CONSTRAINT invitation_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT invitation_tenant FOREIGN KEY (tenant_id) REFERENCES tenant (tenant_id),
        CONSTRAINT invitation_state CHECK (state IN ('open', 'accepted', 'revoked'))
    )""",
    "CREATE UNIQUE INDEX invitation_already_open ON invitation (tenant_id, email_key) WHERE state = 'open'",
    """CREATE TABLE authorization_code (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        digest text NOT NULL,
        member_id uuid NOT NULL,
        client_id text NOT NULL,
        redirect_uri text NOT NULL,
        challenge text NOT NULL,
        scopes jsonb NOT NULL,
        expires_at timestamptz NOT NULL,
        session_id uuid,
        CONSTRAINT authorization_code_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT authorization_code_member FOREIGN KEY (tenant_id, member_id) REFERENCES member (tenant_id, id),
        CONSTRAINT authorization_code_client FOREIGN KEY (tenant_id, client_id) REFERENCES client (tenant_id, id)
    )""",
)

COLUMNS = (
    "ALTER TABLE client ADD COLUMN redirect_uris jsonb NOT NULL DEFAULT '[]'",
    """ALTER TABLE client ADD CONSTRAINT client_public
        CHECK (jsonb_array_length(redirect_uris) = 0 OR jsonb_array_length(secrets) = 0)""",
    "ALTER TABLE session ADD COLUMN client_id text",
    "ALTER TABLE session ADD COLUMN scopes jsonb NOT NULL DEFAULT '[]'",
)


def upgrade() -> None:
    """Expand only."""
    for statement in (*TABLES, *COLUMNS):
        op.execute(statement)
    for table in ("staff", "role", "member", "invitation", "authorization_code"):
        for statement in protect(table, "identity_app", privileges="SELECT, INSERT, UPDATE"):
            op.execute(statement)
