"""Accounts are proven: connections of the platform's kind, and no account for a second tenant, whoever's key opens it."""

from alembic import op

from libs.common.tenancy import protect

revision = "0012"
down_revision = "0011"

STATEMENTS = (
    """CREATE TABLE account_connection (
        tenant_id uuid NOT NULL,
        state_digest bytea NOT NULL,
        subject_id uuid NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        used_at timestamptz,
        account_id text,
        CONSTRAINT account_connection_pkey PRIMARY KEY (tenant_id, state_digest),
        CONSTRAINT account_connection_digest CHECK (octet_length(state_digest) = 32),
        CONSTRAINT account_connection_used CHECK (account_id IS NULL OR used_at IS NOT NULL),
        CONSTRAINT account_connection_bounded CHECK (char_length(account_id) <= 255)
    )""",
    "CREATE INDEX account_connection_proven ON account_connection (tenant_id, account_id)",
    # What two tenants have already stays; no account comes to a second tenant from now on. Of two at once the lock lets
    # one go first, and the other's look, a statement of its own, finds what that one has stored.
    """CREATE FUNCTION provider_account_is_one_tenants() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        IF NEW.account_id IS NULL OR (TG_OP = 'UPDATE' AND OLD.account_id IS NOT DISTINCT FROM NEW.account_id) THEN
            RETURN NEW;
        END IF;
        PERFORM pg_advisory_xact_lock(hashtextextended('provider_account/' || NEW.account_id, 0));
        IF EXISTS (SELECT FROM provider_account a WHERE a.account_id = NEW.account_id AND a.tenant_id <> NEW.tenant_id) THEN
            RAISE EXCEPTION 'this account is taken' USING ERRCODE = 'unique_violation',
                TABLE = 'provider_account', CONSTRAINT = 'provider_account_account_taken';
        END IF;
        RETURN NEW;
    END $$""",
    "REVOKE ALL ON FUNCTION provider_account_is_one_tenants() FROM PUBLIC",
    """CREATE TRIGGER provider_account_is_one_tenants BEFORE INSERT OR UPDATE ON provider_account
        FOR EACH ROW EXECUTE FUNCTION provider_account_is_one_tenants()""",
)


def upgrade() -> None:
    """Expand only."""
    for statement in STATEMENTS:
        op.execute(statement)
    for statement in protect("account_connection", "payments_app", privileges="SELECT, INSERT, UPDATE"):
        op.execute(statement)
