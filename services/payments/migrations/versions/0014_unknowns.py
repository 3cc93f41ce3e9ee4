"""Of money without an order checkout is asked; and a break that nobody can mend may be closed by a person, with a reason."""

from alembic import op

revision = "0014"
down_revision = "0013"

ORPHANED = "captured_minor > refunding_minor + refunded_minor AND order_standing <> 'confirmed'"

STATEMENTS = (
    "ALTER TABLE payment ADD COLUMN order_asked_at timestamptz",
    f"""CREATE OR REPLACE FUNCTION orphan_money(older_than interval, how_many integer) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT p.tenant_id, p.id FROM payment p
        CROSS JOIN LATERAL (SELECT coalesce(min(e.posted_at), p.created_at) AS since FROM ledger_entry e
            WHERE e.tenant_id = p.tenant_id AND e.payment_id = p.id AND e.kind = 'capture') captured
        CROSS JOIN LATERAL (SELECT count(*) AS failures, max(r.created_at) AS last_at FROM refund r
            WHERE r.tenant_id = p.tenant_id AND r.payment_id = p.id AND r.state IN ('failed', 'canceled')) tried
        WHERE {ORPHANED} AND captured.since <= now() - older_than
            AND coalesce(p.order_asked_at <= now() - older_than, true)
            AND coalesce(tried.last_at <= now() - older_than * least(power(2, least(tried.failures, 16)), 96), true)
        ORDER BY captured.since LIMIT how_many
    $$""",  # noqa: S608 - our own predicate
    """ALTER TABLE reconciliation_break
        ADD COLUMN closed_by text,
        ADD COLUMN closed_reason text,
        DROP CONSTRAINT reconciliation_break_state,
        ADD CONSTRAINT reconciliation_break_state CHECK (state IN ('open', 'repaired', 'gone', 'settled')),
        ADD CONSTRAINT reconciliation_break_settled CHECK (
            (state = 'settled') = (closed_by IS NOT NULL) AND (closed_by IS NULL) = (closed_reason IS NULL))""",
)


def upgrade() -> None:
    """Expand only."""
    for statement in STATEMENTS:
        op.execute(statement)
