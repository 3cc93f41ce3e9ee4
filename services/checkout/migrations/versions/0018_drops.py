"""Drops, the places in their queues, what a checkout's buyer has to wait for, and whether they are asked for proof."""

from alembic import op

from libs.common.messaging.schema import erasable
from libs.common.tenancy import protect

revision = "0018"
down_revision = "0017"

WAITING = "deleted_at IS NULL AND last_number > served_number"
OLD = "joined_at < now() - interval '30 days'"
STATEMENTS = (
    "ALTER TABLE checkout ADD COLUMN waiting_for text, ADD COLUMN is_challenged boolean NOT NULL DEFAULT false",
    """CREATE TABLE product_drop (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    version bigint NOT NULL,
    sequence bigint NOT NULL,
    sku text NOT NULL,
    per_minute bigint NOT NULL,
    patience_seconds bigint NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz,
    last_number bigint NOT NULL,
    opened_after bigint NOT NULL,
    served_number bigint NOT NULL,
    rated_at timestamptz NOT NULL,
    waves jsonb NOT NULL,
    sold_out boolean NOT NULL,
    deleted_at timestamptz,
    CONSTRAINT product_drop_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT product_drop_sku UNIQUE (tenant_id, sku),
    CONSTRAINT product_drop_terms CHECK (per_minute > 0 AND patience_seconds > 0),
    CONSTRAINT product_drop_numbers CHECK (
        opened_after >= 0 AND served_number >= opened_after AND last_number >= served_number)
) WITH (fillfactor = 50)""",
    """CREATE TABLE drop_place (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    version bigint NOT NULL,
    sequence bigint NOT NULL,
    drop_id uuid NOT NULL,
    subject_id uuid NOT NULL,
    number bigint NOT NULL,
    joined_at timestamptz NOT NULL,
    checkout_id uuid,
    CONSTRAINT drop_place_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT drop_place_of_drop FOREIGN KEY (tenant_id, drop_id) REFERENCES product_drop (tenant_id, id),
    CONSTRAINT drop_place_number UNIQUE (tenant_id, drop_id, number),
    CONSTRAINT drop_place_subject UNIQUE (tenant_id, drop_id, subject_id),
    CONSTRAINT drop_place_first CHECK (number > 0)
)""",
    "CREATE INDEX drop_place_joined_at ON drop_place (joined_at)",
    # Whose turn it is belongs to no tenant in particular: a function of the owner tells where somebody waits, and whoever asked
    # lets them in under the tenant's own security.
    f"CREATE POLICY owner_finds_waiting ON product_drop FOR SELECT TO checkout_owner USING ({WAITING})",
    """CREATE FUNCTION drops_waiting() RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT d.tenant_id, d.id FROM product_drop d WHERE d.deleted_at IS NULL AND d.last_number > d.served_number
        ORDER BY d.tenant_id, d.id
    $$""",
    f"CREATE POLICY owner_finds_old ON drop_place FOR SELECT TO checkout_owner USING ({OLD})",
    f"CREATE POLICY owner_forgets_old ON drop_place FOR DELETE TO checkout_owner USING ({OLD})",
    """CREATE FUNCTION places_forget(older_than interval, how_many integer) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
        WITH old AS (
            SELECT p.tenant_id, p.id FROM drop_place p WHERE p.joined_at < now() - older_than ORDER BY p.joined_at LIMIT how_many
        ), gone AS (
            DELETE FROM drop_place p USING old WHERE p.tenant_id = old.tenant_id AND p.id = old.id RETURNING 1
        )
        SELECT count(*) FROM gone
    $$""",
    "REVOKE ALL ON FUNCTION drops_waiting(), places_forget(interval, integer) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION drops_waiting(), places_forget(interval, integer) TO checkout_app",
)


def upgrade() -> None:
    """Expand only."""
    for statement in STATEMENTS:
        op.execute(statement)
    for table in ("product_drop", "drop_place"):
        for statement in protect(table, "checkout_app", privileges="SELECT, INSERT, UPDATE"):
            op.execute(statement)
    for statement in erasable("checkout", "product_drop", "drop_place"):
        op.execute(statement)
