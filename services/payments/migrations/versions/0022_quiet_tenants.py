"""A tenant that never took a payment is reconciled once a day: of ten thousand of them, none is much work."""

from alembic import op

revision = "0022"
down_revision = "0021"

# What the provider may have of a tenant began with a payment of its that the provider gave a name. Whatever else is there in a
# tenant's name is found once a day.
DUE = "reconciliations_due(interval, interval, integer)"
FUNCTIONS = (
    """CREATE FUNCTION reconciliations_due(every interval, every_quiet interval, how_many integer)
    RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT r.tenant_id, r.id FROM reconciliation r WHERE r.due_at <= now()
        UNION ALL
        SELECT t.tenant_id, NULL FROM tenant t WHERE every IS NOT NULL AND NOT EXISTS (
            SELECT FROM reconciliation r WHERE r.tenant_id = t.tenant_id
            AND (r.finished_at IS NULL OR r.started_at > now() - every)
        ) AND (
            EXISTS (SELECT FROM payment p WHERE p.tenant_id = t.tenant_id AND p.intent_id IS NOT NULL)
            OR NOT EXISTS (
                SELECT FROM reconciliation r WHERE r.tenant_id = t.tenant_id AND r.started_at > now() - every_quiet
            )
        )
        LIMIT how_many
    $$""",
    f"REVOKE ALL ON FUNCTION {DUE} FROM PUBLIC",
    f"GRANT EXECUTE ON FUNCTION {DUE} TO payments_app",
    # Of each tenant its last run, and not all that it ever had.
    """CREATE OR REPLACE FUNCTION reconciliation_oldest_seconds() RETURNS double precision
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT coalesce(max(extract(epoch FROM now() - last.started_at)), 0)::double precision
        FROM tenant t CROSS JOIN LATERAL (
            SELECT r.started_at FROM reconciliation r WHERE r.tenant_id = t.tenant_id AND r.state = 'finished'
            ORDER BY r.started_at DESC LIMIT 1
        ) AS last
        WHERE EXISTS (SELECT FROM payment p WHERE p.tenant_id = t.tenant_id AND p.intent_id IS NOT NULL)
    $$""",
)


def upgrade() -> None:
    """Expand only: processes of the release before ask with two arguments."""
    for statement in FUNCTIONS:
        op.execute(statement)
