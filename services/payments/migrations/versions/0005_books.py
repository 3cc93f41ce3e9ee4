"""Refunds, disputes and the ledger."""

from alembic import op

from libs.common.tenancy import protect

revision = "0005"
down_revision = "0004"

TABLES = (
    """CREATE TABLE refund (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        payment_id uuid NOT NULL,
        checkout_id uuid NOT NULL,
        order_id uuid NOT NULL,
        amount_minor bigint NOT NULL,
        currency text NOT NULL,
        reason text NOT NULL,
        state text NOT NULL,
        provider_id text,
        failure_code text,
        attempt integer NOT NULL,
        asked_at timestamptz NOT NULL,
        looks integer NOT NULL,
        due_at timestamptz,
        created_at timestamptz NOT NULL,
        CONSTRAINT refund_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT refund_of_payment FOREIGN KEY (tenant_id, payment_id) REFERENCES payment (tenant_id, id),
        CONSTRAINT refund_of_provider UNIQUE (tenant_id, provider_id),
        CONSTRAINT refund_state
            CHECK (state IN ('requested', 'unknown', 'pending', 'succeeded', 'failed', 'canceled')),
        CONSTRAINT refund_amount CHECK (amount_minor > 0 OR (amount_minor = 0 AND state = 'failed')),
        CONSTRAINT refund_currency CHECK (char_length(currency) = 3),
        CONSTRAINT refund_failed CHECK ((state IN ('failed', 'canceled')) = (failure_code IS NOT NULL)),
        CONSTRAINT refund_provider CHECK (provider_id IS NOT NULL OR state NOT IN ('pending', 'succeeded')),
        CONSTRAINT refund_due CHECK ((state IN ('requested', 'unknown', 'pending')) = (due_at IS NOT NULL)),
        CONSTRAINT refund_counts CHECK (attempt >= 1 AND looks >= 0)
    )""",
    "CREATE INDEX refund_by_payment ON refund (tenant_id, payment_id)",
    "CREATE INDEX refund_due_at ON refund (due_at) WHERE due_at IS NOT NULL",
    """CREATE TABLE dispute (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        payment_id uuid NOT NULL,
        checkout_id uuid NOT NULL,
        order_id uuid NOT NULL,
        provider_id text NOT NULL,
        amount_minor bigint NOT NULL,
        currency text NOT NULL,
        reason text NOT NULL,
        state text NOT NULL,
        respond_by timestamptz,
        withdrawn_minor bigint NOT NULL,
        reinstated_minor bigint NOT NULL,
        fee_minor bigint NOT NULL,
        created_at timestamptz NOT NULL,
        CONSTRAINT dispute_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT dispute_of_payment FOREIGN KEY (tenant_id, payment_id) REFERENCES payment (tenant_id, id),
        CONSTRAINT dispute_of_provider UNIQUE (tenant_id, provider_id),
        CONSTRAINT dispute_state CHECK (state IN ('warning_needs_response', 'warning_under_review', 'warning_closed',
            'needs_response', 'under_review', 'won', 'lost', 'prevented')),
        CONSTRAINT dispute_amount CHECK (amount_minor >= 0),
        CONSTRAINT dispute_currency CHECK (char_length(currency) = 3),
        CONSTRAINT dispute_money CHECK (withdrawn_minor >= 0 AND reinstated_minor >= 0 AND fee_minor >= 0)
    )""",
    "CREATE INDEX dispute_by_payment ON dispute (tenant_id, payment_id)",
    """CREATE TABLE ledger_account (
        tenant_id uuid NOT NULL,
        currency text NOT NULL,
        code text NOT NULL,
        CONSTRAINT ledger_account_pkey PRIMARY KEY (tenant_id, currency, code),
        CONSTRAINT ledger_account_currency CHECK (char_length(currency) = 3),
        CONSTRAINT ledger_account_code
            CHECK (code IN ('provider_balance', 'sales', 'provider_fees', 'refunds', 'chargebacks', 'dispute_fees'))
    )""",
    """CREATE TABLE ledger_entry (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        payment_id uuid NOT NULL,
        kind text NOT NULL,
        debit text NOT NULL,
        credit text NOT NULL,
        amount_minor bigint NOT NULL,
        currency text NOT NULL,
        reference text NOT NULL,
        posted_at timestamptz NOT NULL,
        CONSTRAINT ledger_entry_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT ledger_entry_of_payment FOREIGN KEY (tenant_id, payment_id) REFERENCES payment (tenant_id, id),
        CONSTRAINT ledger_entry_debits FOREIGN KEY (tenant_id, currency, debit)
            REFERENCES ledger_account (tenant_id, currency, code),
        CONSTRAINT ledger_entry_credits FOREIGN KEY (tenant_id, currency, credit)
            REFERENCES ledger_account (tenant_id, currency, code),
        CONSTRAINT ledger_entry_amount CHECK (amount_minor > 0),
        CONSTRAINT ledger_entry_kind CHECK (
            kind = 'capture' AND debit = 'provider_balance' AND credit = 'sales'
            OR kind = 'fee' AND debit = 'provider_fees' AND credit = 'provider_balance'
            OR kind = 'fee_return' AND debit = 'provider_balance' AND credit = 'provider_fees'
            OR kind = 'refund' AND debit = 'refunds' AND credit = 'provider_balance'
            OR kind = 'refund_return' AND debit = 'provider_balance' AND credit = 'refunds'
            OR kind = 'chargeback' AND debit = 'chargebacks' AND credit = 'provider_balance'
            OR kind = 'chargeback_return' AND debit = 'provider_balance' AND credit = 'chargebacks'
            OR kind = 'dispute_fee' AND debit = 'dispute_fees' AND credit = 'provider_balance'
            OR kind = 'dispute_fee_return' AND debit = 'provider_balance' AND credit = 'dispute_fees')
    )""",
    "CREATE INDEX ledger_entry_posted ON ledger_entry (tenant_id, posted_at, id)",
    "CREATE INDEX ledger_entry_by_payment ON ledger_entry (tenant_id, payment_id, posted_at, id)",
)

# Whoever it is, and whatever they may otherwise: a ledger that can be changed proves nothing.
IMMUTABLE = (
    """CREATE FUNCTION ledger_stands() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        RAISE EXCEPTION 'the ledger is never changed: post another entry, the other way round'
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'ledger_stands';
    END $$""",
    "REVOKE ALL ON FUNCTION ledger_stands() FROM PUBLIC",
    *(
        f"CREATE TRIGGER {table}_stands BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION ledger_stands()"
        for table in ("ledger_account", "ledger_entry")
    ),
)

# Refunds of one payment may be on their way side by side; of one refund there is one call.
OPERATIONS = (
    """ALTER TABLE operation
        ADD COLUMN refund_id uuid,
        ADD CONSTRAINT operation_of_refund FOREIGN KEY (tenant_id, refund_id) REFERENCES refund (tenant_id, id),
        DROP CONSTRAINT operation_kind,
        ADD CONSTRAINT operation_kind CHECK (kind IN ('create', 'confirm', 'capture', 'cancel', 'refund')),
        ADD CONSTRAINT operation_refund CHECK ((kind = 'refund') = (refund_id IS NOT NULL))""",
    "DROP INDEX operation_open",
    """CREATE UNIQUE INDEX operation_open ON operation (tenant_id, payment_id)
        WHERE state IN ('sending', 'unknown') AND kind <> 'refund'""",
    """CREATE UNIQUE INDEX operation_open_of_refund ON operation (tenant_id, refund_id)
        WHERE state IN ('sending', 'unknown') AND kind = 'refund'""",
)

ORPHANED = "captured_minor > refunding_minor + refunded_minor AND order_standing <> 'confirmed'"

# What is due belongs to no tenant in particular (see 0001): keys and ages, and no more than that. Money that nobody
# wanted is looked for from its capture on; each refund of it that failed doubles the wait for the next.
WATCH = (
    f"CREATE INDEX payment_orphaned ON payment (created_at) WHERE {ORPHANED}",
    """CREATE POLICY owner_finds_waiting ON refund FOR SELECT TO payments_owner
    USING (due_at IS NOT NULL OR state IN ('failed', 'canceled'))""",
    f"CREATE POLICY owner_finds_orphans ON payment FOR SELECT TO payments_owner USING ({ORPHANED})",
    "CREATE POLICY owner_dates_captures ON ledger_entry FOR SELECT TO payments_owner USING (kind = 'capture')",
    """CREATE FUNCTION refunds_due(how_many integer) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT r.tenant_id, r.id FROM refund r WHERE r.due_at <= now() ORDER BY r.due_at LIMIT how_many
    $$""",
    f"""CREATE FUNCTION orphan_money(older_than interval, how_many integer) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT p.tenant_id, p.id FROM payment p
        CROSS JOIN LATERAL (SELECT coalesce(min(e.posted_at), p.created_at) AS since FROM ledger_entry e
            WHERE e.tenant_id = p.tenant_id AND e.payment_id = p.id AND e.kind = 'capture') captured
        CROSS JOIN LATERAL (SELECT count(*) AS failures, max(r.created_at) AS last_at FROM refund r
            WHERE r.tenant_id = p.tenant_id AND r.payment_id = p.id AND r.state IN ('failed', 'canceled')) tried
        WHERE {ORPHANED} AND captured.since <= now() - older_than
            AND coalesce(tried.last_at <= now() - older_than * least(power(2, least(tried.failures, 16)), 96), true)
        ORDER BY captured.since LIMIT how_many
    $$""",  # noqa: S608 - our own predicate
    f"""CREATE FUNCTION orphan_money_age() RETURNS TABLE (payment_count bigint, oldest_seconds double precision)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT count(*), coalesce(extract(epoch FROM now() - min(captured.since)), 0)::double precision FROM payment p
        CROSS JOIN LATERAL (SELECT coalesce(min(e.posted_at), p.created_at) AS since FROM ledger_entry e
            WHERE e.tenant_id = p.tenant_id AND e.payment_id = p.id AND e.kind = 'capture') captured
        WHERE {ORPHANED}
    $$""",  # noqa: S608 - as above
    "REVOKE ALL ON FUNCTION refunds_due(integer), orphan_money(interval, integer), orphan_money_age() FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION refunds_due(integer), orphan_money(interval, integer), orphan_money_age() TO payments_app",
)


def upgrade() -> None:
    """Make everything."""
    for statement in (*TABLES, *IMMUTABLE, *OPERATIONS):
        op.execute(statement)
    for table, privileges in (
        ("refund", "SELECT, INSERT, UPDATE"),
        ("dispute", "SELECT, INSERT, UPDATE"),
        ("ledger_account", "SELECT, INSERT"),
        ("ledger_entry", "SELECT, INSERT"),
    ):
        for statement in protect(table, "payments_app", privileges=privileges):
            op.execute(statement)
    for statement in WATCH:
        op.execute(statement)
