"""Signing keys that are rotated and revoked, secrets of the service's own, API keys, and who was last used when."""

from alembic import op

from libs.common.tenancy import SETTING, protect

revision = "0014"
down_revision = "0013"

SIGNING_KEYS = (
    "ALTER TABLE signing_key DROP CONSTRAINT signing_key_state",
    """ALTER TABLE signing_key ADD CONSTRAINT signing_key_state
        CHECK (state IN ('next', 'active', 'retired', 'revoked'))""",
    """ALTER TABLE signing_key ADD CONSTRAINT signing_key_signs
        CHECK ((length(sealed_private_key) > 0) = (state IN ('next', 'active')))""",
    "DROP INDEX signing_key_one_active",
    # Two change places in one statement, and a unique index would look between them.
    """ALTER TABLE signing_key ADD CONSTRAINT signing_key_one_of_each
        EXCLUDE USING btree (tenant_id WITH =, state WITH =) WHERE (state IN ('next', 'active')) DEFERRABLE""",
)

TABLES = (
    """CREATE TABLE service_secret (
        tenant_id uuid NOT NULL,
        name text NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        sealed bytea NOT NULL,
        CONSTRAINT service_secret_pkey PRIMARY KEY (tenant_id, name)
    )""",
    """CREATE TABLE api_key (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        name text NOT NULL,
        scopes jsonb NOT NULL,
        digest text NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        last_used_on date,
        deleted_at timestamptz,
        CONSTRAINT api_key_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT api_key_tenant FOREIGN KEY (tenant_id) REFERENCES tenant (tenant_id),
        CONSTRAINT api_key_ends CHECK (expires_at > created_at)
    )""",
    "ALTER TABLE client ADD COLUMN last_used_on date",
)

# A grant looks at one row and its tenant's, in one round trip: whose rows it sees is set on the way, under the policies.
COLUMNS = {
    "client": "subject_id uuid, name text, scopes jsonb, secrets jsonb, last_used_on date",
    "api_key": "name text, scopes jsonb, digest text, created_at timestamptz, expires_at timestamptz, "
    "last_used_on date, deleted_at timestamptz",
}


def _for_grant(table: str, kind: str) -> str:
    columns = COLUMNS[table]
    wanted = ", ".join(f"c.{column.split()[0]}" for column in columns.split(", "))
    return f"""CREATE FUNCTION {table}_for_grant(wanted_tenant uuid, wanted {kind})
    RETURNS TABLE ({columns}, tenant_status text)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('{SETTING}', wanted_tenant::text, true);
    RETURN QUERY SELECT {wanted}, t.status FROM {table} c LEFT JOIN tenant t ON t.tenant_id = c.tenant_id
        WHERE c.tenant_id = wanted_tenant AND c.id = wanted;
END
$$"""  # noqa: S608 - names and constants of our own


GRANTS = (_for_grant("client", "text"), _for_grant("api_key", "uuid"))


def upgrade() -> None:
    """Expand; what readers know of a key stays as it is."""
    for statement in (*SIGNING_KEYS, *TABLES):
        op.execute(statement)
    for table in ("service_secret", "api_key"):
        for statement in protect(table, "identity_app", privileges="SELECT, INSERT, UPDATE"):
            op.execute(statement)
    for statement in GRANTS:
        op.execute(statement)
    for signature in ("client_for_grant(uuid, text)", "api_key_for_grant(uuid, uuid)"):
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO identity_app")
