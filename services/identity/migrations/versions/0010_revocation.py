"""Revocation epochs: since when the tokens of a tenant, subject, session or client are refused. Sessions by their subject."""

from alembic import op

from libs.common.clock import PLATFORM
from libs.common.tenancy import SETTING, protect

revision = "0010"
down_revision = "0009"

EPOCH = """CREATE TABLE epoch (
    tenant_id uuid NOT NULL,
    id text NOT NULL,
    version bigint NOT NULL,
    sequence bigint NOT NULL,
    kind text NOT NULL,
    epoch_ms bigint NOT NULL,
    CONSTRAINT epoch_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT epoch_kind CHECK (kind IN ('tenant', 'subject', 'session', 'client'))
)"""

# What is told again is of all tenants. The platform's own transactions learn which epochs may still refuse a token, and
# nothing else of them; each is then read under its own tenant.
LIVE = f"""CREATE FUNCTION epochs_for_platform(since_ms bigint)
RETURNS TABLE (tenant_id uuid, id text, epoch_ms bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT e.tenant_id, e.id, e.epoch_ms FROM epoch e
    WHERE current_setting('{SETTING}', true) = '{PLATFORM}' AND e.epoch_ms > since_ms
$$"""  # noqa: S608 - names and constants of our own


def upgrade() -> None:
    """Expand only."""
    op.execute("ALTER TABLE session ADD COLUMN refresh_count bigint NOT NULL DEFAULT 0")
    op.execute("CREATE INDEX session_of_subject ON session (tenant_id, subject_id, id)")
    op.execute(EPOCH)
    op.execute("CREATE INDEX epoch_live ON epoch (epoch_ms)")
    for statement in protect("epoch", "identity_app", privileges="SELECT, INSERT, UPDATE"):
        op.execute(statement)
    op.execute("CREATE POLICY owner_tells_all ON epoch FOR SELECT TO identity_owner USING (true)")
    op.execute(LIVE)
    op.execute("REVOKE ALL ON FUNCTION epochs_for_platform(bigint) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION epochs_for_platform(bigint) TO identity_app")
