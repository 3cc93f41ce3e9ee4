"""What waits for a person, in one list; and a refund that failed may be closed by one who says how the buyer was paid."""

from alembic import op

revision = "0016"
down_revision = "0015"

UNENDED = "state = 'unknown' AND unknown_count >= 4"
FAILED = "state IN ('failed', 'canceled') AND closed_at IS NULL"
NO_ORDER = "captured_minor > refunding_minor + refunded_minor AND order_standing <> 'confirmed' AND order_asked_at IS NOT NULL"
EVIDENCE = "state IN ('warning_needs_response', 'needs_response')"

CLOSING = (
    """ALTER TABLE refund
        ADD COLUMN closed_at timestamptz,
        ADD COLUMN closed_by text,
        ADD COLUMN closed_reason text,
        ADD CONSTRAINT refund_closed CHECK (
            (closed_at IS NULL) = (closed_by IS NULL) AND (closed_at IS NULL) = (closed_reason IS NULL)
            AND (closed_at IS NULL OR state IN ('failed', 'canceled'))) NOT VALID""",
    "ALTER TABLE refund VALIDATE CONSTRAINT refund_closed",
)

# The same as in the repository, whosever it is: keys and ages, and no more than that. A failed refund of a payment without an
# order is that payment's.
REVIEW = f"""
            SELECT tenant_id, 'outcome-unknown' AS kind, id, first_send_at AS since FROM operation WHERE {UNENDED}
            UNION ALL
            SELECT r.tenant_id, 'refund-failed', r.id, r.created_at
            FROM (SELECT tenant_id, payment_id, id, created_at FROM refund WHERE {FAILED}) AS r
            JOIN payment p ON p.tenant_id = r.tenant_id AND p.id = r.payment_id
            WHERE p.captured_minor > p.refunding_minor + p.refunded_minor
                AND (p.order_standing = 'confirmed' OR p.order_asked_at IS NULL)
            UNION ALL
            SELECT tenant_id, 'money-without-order', id, created_at FROM payment WHERE {NO_ORDER}
            UNION ALL
            SELECT tenant_id, 'break-open', id, first_seen_at FROM reconciliation_break WHERE closed_at IS NULL
            UNION ALL
            SELECT tenant_id, 'dispute-wants-evidence', id, created_at FROM dispute WHERE {EVIDENCE}
"""  # noqa: S608 - our own predicates

# Each kind has an index of what waits and of nothing else, the tenant first.
WAITING = (
    f"CREATE INDEX operation_unended ON operation (tenant_id, first_send_at, id) WHERE {UNENDED}",
    f"CREATE INDEX refund_failed_open ON refund (tenant_id, created_at, id) WHERE {FAILED}",
    f"CREATE INDEX payment_without_order ON payment (tenant_id, created_at, id) WHERE {NO_ORDER}",
    f"CREATE INDEX dispute_wants_evidence ON dispute (tenant_id, created_at, id) WHERE {EVIDENCE}",
    f"CREATE POLICY owner_counts_waiting ON dispute FOR SELECT TO payments_owner USING ({EVIDENCE})",
    f"""CREATE FUNCTION reviews_waiting(the_kind text, after_at timestamptz, after_id uuid, how_many integer)
    RETURNS TABLE (tenant_id uuid, id uuid, since timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT r.tenant_id, r.id, r.since FROM ({REVIEW}) AS r
        WHERE (the_kind IS NULL OR r.kind = the_kind) AND (r.since, r.id) > (after_at, after_id)
        ORDER BY r.since, r.id LIMIT how_many
    $$""",  # noqa: S608 - as above
    f"""CREATE FUNCTION reviews_counted() RETURNS TABLE (kind text, review_count bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT r.kind, count(*) FROM ({REVIEW}) AS r GROUP BY r.kind
    $$""",  # noqa: S608 - as above
    "REVOKE ALL ON FUNCTION reviews_waiting(text, timestamptz, uuid, integer), reviews_counted() FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION reviews_waiting(text, timestamptz, uuid, integer), reviews_counted() TO payments_app",
)


def upgrade() -> None:
    """Expand only."""
    for statement in (*CLOSING, *WAITING):
        op.execute(statement)
