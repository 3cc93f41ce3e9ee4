"""Refused cards are counted, by buyer, address and shop; and a checkout says where its payer is."""

from alembic import op

from libs.common.tenancy import protect

revision = "0015"
down_revision = "0014"

OLD = "last_at < now() - interval '2 hours' AND sequence = 0"
STATEMENTS = (
    "ALTER TABLE checkout ADD COLUMN origin uuid, ADD COLUMN is_watched boolean NOT NULL DEFAULT false",
    """CREATE TABLE declines (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    version bigint NOT NULL,
    sequence bigint NOT NULL,
    by text NOT NULL,
    counts jsonb NOT NULL,
    last_at timestamptz NOT NULL,
    CONSTRAINT declines_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT declines_by CHECK (by IN ('subject', 'address', 'tenant'))
)""",
    "CREATE INDEX declines_last_at ON declines (last_at)",
    # What is older than any window is of no use, unless an event told of it: the next one goes on from its number.
    f"CREATE POLICY owner_finds_old ON declines FOR SELECT TO checkout_owner USING ({OLD})",
    f"CREATE POLICY owner_forgets_old ON declines FOR DELETE TO checkout_owner USING ({OLD})",
    """CREATE FUNCTION declines_forget(older_than interval, how_many integer) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
        WITH old AS (
            SELECT d.tenant_id, d.id FROM declines d WHERE d.last_at < now() - older_than AND d.sequence = 0
            ORDER BY d.last_at LIMIT how_many
        ), gone AS (
            DELETE FROM declines d USING old WHERE d.tenant_id = old.tenant_id AND d.id = old.id RETURNING 1
        )
        SELECT count(*) FROM gone
    $$""",
    "REVOKE ALL ON FUNCTION declines_forget(interval, integer) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION declines_forget(interval, integer) TO checkout_app",
)


def upgrade() -> None:
    """Expand only."""
    for statement in (*STATEMENTS, *protect("declines", "checkout_app", privileges="SELECT, INSERT, UPDATE")):
        op.execute(statement)
