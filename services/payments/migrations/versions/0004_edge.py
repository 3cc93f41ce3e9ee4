"""Provider accounts of the tenants, and what the provider tells us by webhook."""

from alembic import op

from libs.common.tenancy import protect

revision = "0004"
down_revision = "0003"

TABLES = (
    """CREATE TABLE provider_account (
        tenant_id uuid NOT NULL,
        provider text NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        account_id text,
        sealed_api_key bytea,
        api_key_hint text,
        webhook_secrets jsonb NOT NULL,
        master_key_id text NOT NULL,
        wrapped_key bytea NOT NULL,
        livemode boolean NOT NULL,
        created_at timestamptz NOT NULL,
        rotated_at timestamptz NOT NULL,
        CONSTRAINT provider_account_pkey PRIMARY KEY (tenant_id, provider),
        CONSTRAINT provider_account_provider CHECK (provider = 'stripe'),
        CONSTRAINT provider_account_key CHECK ((sealed_api_key IS NULL) = (api_key_hint IS NULL)),
        CONSTRAINT provider_account_hint CHECK (char_length(api_key_hint) <= 4),
        CONSTRAINT provider_account_named CHECK (sealed_api_key IS NOT NULL OR account_id IS NOT NULL),
        CONSTRAINT provider_account_webhook_secrets CHECK (jsonb_array_length(webhook_secrets) <= 2)
    )""",
    """CREATE TABLE webhook_event (
        tenant_id uuid NOT NULL,
        id text NOT NULL,
        type text NOT NULL,
        subject text NOT NULL,
        object_id text NOT NULL,
        intent_id text,
        payment_id uuid,
        status text,
        amount_minor bigint,
        livemode boolean NOT NULL,
        account text,
        occurred_at timestamptz NOT NULL,
        received_at timestamptz NOT NULL,
        attempts integer NOT NULL,
        due_at timestamptz,
        result text,
        CONSTRAINT webhook_event_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT webhook_event_subject CHECK (subject IN ('intent', 'refund', 'dispute', 'other')),
        CONSTRAINT webhook_event_result
            CHECK (result IN ('observed', 'nothing-new', 'not-ours', 'of-no-interest', 'gone')),
        CONSTRAINT webhook_event_due CHECK ((due_at IS NULL) = (result IS NOT NULL)),
        CONSTRAINT webhook_event_bounded CHECK (char_length(id) <= 255 AND char_length(type) <= 255
            AND char_length(object_id) <= 255 AND char_length(intent_id) <= 255 AND char_length(account) <= 255
            AND char_length(status) <= 255)
    )""",
    # The platform's key acts for a connected account on behalf of one tenant, and of no second one.
    "CREATE UNIQUE INDEX provider_account_account_taken ON provider_account (account_id) WHERE sealed_api_key IS NULL",
    # A dispute knows the provider's payment alone.
    "CREATE UNIQUE INDEX payment_of_intent ON payment (tenant_id, intent_id)",
    "CREATE INDEX webhook_event_due_at ON webhook_event (due_at) WHERE due_at IS NOT NULL",
    "CREATE INDEX webhook_event_received_at ON webhook_event (received_at)",
)

# As for operations: what waits belongs to no tenant in particular, and the owner tells keys and ages alone.
ACROSS_TENANTS = (
    """CREATE POLICY owner_finds_waiting_or_old ON webhook_event FOR SELECT TO payments_owner
        USING (due_at IS NOT NULL OR received_at < now() - interval '31 days')""",
    """CREATE POLICY owner_forgets_old ON webhook_event FOR DELETE TO payments_owner
        USING (due_at IS NULL AND received_at < now() - interval '31 days')""",
    """CREATE FUNCTION webhook_events_due(how_many integer) RETURNS TABLE (tenant_id uuid, id text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT w.tenant_id, w.id FROM webhook_event w WHERE w.due_at <= now() ORDER BY w.due_at LIMIT how_many
    $$""",
    """CREATE FUNCTION webhook_events_waiting() RETURNS TABLE (waiting_count bigint, oldest_seconds double precision)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT count(*), coalesce(extract(epoch FROM now() - min(w.received_at)), 0)::double precision
        FROM webhook_event w WHERE w.due_at IS NOT NULL
    $$""",
    # Settled ones are kept for as long as the provider may send them again: the policies let go of none that is younger.
    """CREATE FUNCTION webhook_events_forget(older_than interval, how_many integer) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
        WITH old AS (
            SELECT w.tenant_id, w.id FROM webhook_event w
            WHERE w.received_at < now() - older_than AND w.due_at IS NULL
            ORDER BY w.received_at LIMIT how_many
        ), gone AS (
            DELETE FROM webhook_event w USING old WHERE w.tenant_id = old.tenant_id AND w.id = old.id RETURNING 1
        )
        SELECT count(*) FROM gone
    $$""",
    "CREATE POLICY owner_finds_wrapped ON provider_account FOR SELECT TO payments_owner USING (true)",
    """CREATE FUNCTION provider_accounts_wrapped_otherwise(current_key_id text, after uuid, how_many integer)
    RETURNS TABLE (tenant_id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT a.tenant_id FROM provider_account a WHERE a.master_key_id <> current_key_id AND a.tenant_id > after
        ORDER BY a.tenant_id LIMIT how_many
    $$""",
)
FUNCTIONS = (
    "webhook_events_due(integer)",
    "webhook_events_waiting()",
    "webhook_events_forget(interval, integer)",
    "provider_accounts_wrapped_otherwise(text, uuid, integer)",
)


def upgrade() -> None:
    """Make everything."""
    for statement in TABLES:
        op.execute(statement)
    for table in ("provider_account", "webhook_event"):
        for statement in protect(table, "payments_app", privileges="SELECT, INSERT, UPDATE"):
            op.execute(statement)
    for statement in ACROSS_TENANTS:
        op.execute(statement)
    op.execute(f"REVOKE ALL ON FUNCTION {', '.join(FUNCTIONS)} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {', '.join(FUNCTIONS)} TO payments_app")
