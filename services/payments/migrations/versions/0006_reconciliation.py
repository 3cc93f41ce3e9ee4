"""Reconciliations, and the breaks they found."""

from alembic import op

from libs.common.tenancy import protect

revision = "0006"
down_revision = "0005"

TABLES = (
    """CREATE TABLE reconciliation (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        window_from timestamptz NOT NULL,
        window_to timestamptz NOT NULL,
        grace_seconds integer NOT NULL,
        requested_by text NOT NULL,
        state text NOT NULL,
        tries integer NOT NULL,
        due_at timestamptz,
        started_at timestamptz NOT NULL,
        finished_at timestamptz,
        counts jsonb NOT NULL,
        totals jsonb NOT NULL,
        error text,
        CONSTRAINT reconciliation_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT reconciliation_state CHECK (state IN ('requested', 'running', 'finished', 'failed')),
        CONSTRAINT reconciliation_window CHECK (window_from < window_to),
        CONSTRAINT reconciliation_numbers CHECK (grace_seconds >= 0 AND tries >= 0),
        CONSTRAINT reconciliation_due CHECK ((state IN ('requested', 'running')) = (due_at IS NOT NULL)),
        CONSTRAINT reconciliation_finished CHECK ((state IN ('finished', 'failed')) = (finished_at IS NOT NULL))
    )""",
    "CREATE UNIQUE INDEX reconciliation_running ON reconciliation (tenant_id) WHERE finished_at IS NULL",
    "CREATE INDEX reconciliation_of_time ON reconciliation (tenant_id, started_at)",
    """CREATE TABLE reconciliation_break (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        kind text NOT NULL,
        subject text NOT NULL,
        our_id uuid,
        provider_id text,
        payment_id uuid,
        currency text NOT NULL,
        ours jsonb,
        theirs jsonb,
        repair text,
        state text NOT NULL,
        first_seen_at timestamptz NOT NULL,
        last_seen_at timestamptz NOT NULL,
        seen_count integer NOT NULL,
        closed_at timestamptz,
        reconciliation_id uuid NOT NULL,
        CONSTRAINT reconciliation_break_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT reconciliation_break_of_run
            FOREIGN KEY (tenant_id, reconciliation_id) REFERENCES reconciliation (tenant_id, id),
        CONSTRAINT reconciliation_break_kind
            CHECK (kind IN ('missing-here', 'missing-there', 'amount', 'state', 'fee')),
        CONSTRAINT reconciliation_break_subject CHECK (subject IN ('payment', 'refund', 'dispute', 'transaction')),
        CONSTRAINT reconciliation_break_state CHECK (state IN ('open', 'repaired', 'gone')),
        CONSTRAINT reconciliation_break_repair CHECK (repair IN ('observe', 'post')),
        CONSTRAINT reconciliation_break_here CHECK ((kind = 'missing-here') = (ours IS NULL)),
        CONSTRAINT reconciliation_break_there CHECK ((kind = 'missing-there') = (theirs IS NULL)),
        CONSTRAINT reconciliation_break_closed CHECK ((state = 'open') = (closed_at IS NULL)),
        CONSTRAINT reconciliation_break_named CHECK (our_id IS NOT NULL OR provider_id IS NOT NULL)
    )""",
    "CREATE INDEX reconciliation_break_open ON reconciliation_break (tenant_id, first_seen_at, id) WHERE closed_at IS NULL",
    "CREATE INDEX reconciliation_break_of_time ON reconciliation_break (tenant_id, first_seen_at, id)",
    # What of ours was made in a window is looked up by time, what the provider tells of by its own ids.
    "CREATE INDEX payment_of_time ON payment (tenant_id, created_at, id)",
    "CREATE INDEX payment_of_charge ON payment (tenant_id, charge_id) WHERE charge_id IS NOT NULL",
    "CREATE INDEX refund_of_time ON refund (tenant_id, created_at, id)",
)

# Whose turn it is, how old the oldest break is, and which outcomes wait for a person belong to no tenant in particular:
# these functions of the owner see all, and tell no more than keys, numbers and ages.
OVERSIGHT = (
    "CREATE POLICY owner_finds_due ON reconciliation FOR SELECT TO payments_owner USING (true)",
    "CREATE POLICY owner_counts_open ON reconciliation_break FOR SELECT TO payments_owner USING (closed_at IS NULL)",
    "CREATE POLICY owner_finds_due ON tenant FOR SELECT TO payments_owner USING (true)",
    """CREATE FUNCTION reconciliations_due(every interval, how_many integer) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT r.tenant_id, r.id FROM reconciliation r WHERE r.due_at <= now()
        UNION ALL
        SELECT t.tenant_id, NULL FROM tenant t WHERE every IS NOT NULL AND NOT EXISTS (
            SELECT FROM reconciliation r WHERE r.tenant_id = t.tenant_id
            AND (r.finished_at IS NULL OR r.started_at > now() - every)
        )
        LIMIT how_many
    $$""",
    """CREATE FUNCTION reconciliation_breaks_open()
    RETURNS TABLE (kind text, break_count bigint, oldest_seconds double precision)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT b.kind, count(*), extract(epoch FROM now() - min(b.first_seen_at))::double precision
        FROM reconciliation_break b WHERE b.closed_at IS NULL GROUP BY b.kind
    $$""",
    """CREATE FUNCTION reconciliation_oldest_seconds() RETURNS double precision
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT coalesce(max(extract(epoch FROM now() - last_at)), 0)::double precision FROM (
            SELECT max(r.started_at) FILTER (WHERE r.state = 'finished') AS last_at FROM reconciliation r GROUP BY r.tenant_id
        ) AS of_tenant
    $$""",
    """CREATE FUNCTION operations_unknown(the_tenant uuid, after_at timestamptz, after_id uuid, how_many integer)
    RETURNS TABLE (tenant_id uuid, id uuid, first_send_at timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT o.tenant_id, o.id, o.first_send_at FROM operation o
        WHERE o.due_at IS NOT NULL AND o.state = 'unknown' AND (the_tenant IS NULL OR o.tenant_id = the_tenant)
            AND (o.first_send_at, o.id) > (after_at, after_id)
        ORDER BY o.first_send_at, o.id LIMIT how_many
    $$""",
)
FUNCTIONS = (
    "reconciliations_due(interval, integer)",
    "reconciliation_breaks_open()",
    "reconciliation_oldest_seconds()",
    "operations_unknown(uuid, timestamptz, uuid, integer)",
)


def upgrade() -> None:
    """Make everything."""
    for statement in TABLES:
        op.execute(statement)
    for table in ("reconciliation", "reconciliation_break"):
        for statement in protect(table, "payments_app", privileges="SELECT, INSERT, UPDATE"):
            op.execute(statement)
    for statement in OVERSIGHT:
        op.execute(statement)
    for function in FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO payments_app")
