"""Tenants, payments, provider operations, and the messaging kernel; row-level security from the start."""

from alembic import op

from libs.common.messaging.schema import kernel_v1
from libs.common.tenancy import protect

revision = "0001"
down_revision = None

TABLES = (
    """CREATE TABLE tenant (
        tenant_id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        slug text NOT NULL,
        status text NOT NULL,
        currency text NOT NULL,
        country text NOT NULL,
        settings jsonb NOT NULL,
        tenant_version bigint NOT NULL,
        CONSTRAINT tenant_pkey PRIMARY KEY (tenant_id)
    )""",
    """CREATE TABLE payment (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        checkout_id uuid NOT NULL,
        order_id uuid NOT NULL,
        subject_id uuid NOT NULL,
        amount_minor bigint NOT NULL,
        currency text NOT NULL,
        method text NOT NULL,
        capture text NOT NULL,
        quote_hash text NOT NULL,
        state text NOT NULL,
        intent_id text,
        authorized_minor bigint NOT NULL,
        captured_minor bigint NOT NULL,
        decline_code text,
        expires_at timestamptz,
        requested_capture boolean NOT NULL,
        void_reason text,
        created_at timestamptz NOT NULL,
        CONSTRAINT payment_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT payment_state CHECK (state IN ('created', 'authorizing', 'requires_action', 'authorized',
            'capturing', 'captured', 'voiding', 'voided', 'declined', 'expired', 'unknown')),
        CONSTRAINT payment_amount CHECK (amount_minor > 0 OR (amount_minor = 0 AND state IN ('voided', 'declined'))),
        CONSTRAINT payment_currency CHECK (char_length(currency) = 3 AND (currency <> 'XXX' OR amount_minor = 0)),
        CONSTRAINT payment_capture CHECK (capture IN ('on-confirmation', 'on-shipment')),
        CONSTRAINT payment_captured_within_authorized_within_amount
            CHECK (0 <= captured_minor AND captured_minor <= authorized_minor AND authorized_minor <= amount_minor),
        CONSTRAINT payment_authorized
            CHECK (authorized_minor > 0 OR state NOT IN ('authorized', 'capturing', 'captured')),
        CONSTRAINT payment_captured CHECK ((state = 'captured') = (captured_minor > 0)),
        CONSTRAINT payment_declined CHECK ((state = 'declined') = (decline_code IS NOT NULL)),
        CONSTRAINT payment_intent
            CHECK (intent_id IS NOT NULL OR state IN ('created', 'authorizing', 'voided', 'declined', 'unknown'))
    )""",
    "CREATE INDEX payment_of_checkout ON payment (tenant_id, checkout_id)",
    "CREATE INDEX payment_of_order ON payment (tenant_id, order_id)",
    "CREATE INDEX payment_of_subject ON payment (tenant_id, subject_id, id)",
    """CREATE TABLE operation (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        payment_id uuid NOT NULL,
        kind text NOT NULL,
        attempt integer NOT NULL,
        idempotency_key text NOT NULL,
        request jsonb NOT NULL,
        state text NOT NULL,
        tries integer NOT NULL,
        first_send_at timestamptz NOT NULL,
        due_at timestamptz,
        outcome jsonb,
        traceparent text,
        CONSTRAINT operation_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT operation_of_payment FOREIGN KEY (tenant_id, payment_id) REFERENCES payment (tenant_id, id),
        CONSTRAINT operation_attempt UNIQUE (tenant_id, payment_id, kind, attempt),
        CONSTRAINT operation_kind CHECK (kind IN ('create', 'confirm', 'capture', 'cancel')),
        CONSTRAINT operation_state CHECK (state IN ('sending', 'unknown', 'succeeded', 'declined', 'rejected')),
        CONSTRAINT operation_due CHECK ((state IN ('sending', 'unknown')) = (due_at IS NOT NULL)),
        CONSTRAINT operation_outcome CHECK (state IN ('sending', 'unknown') OR outcome IS NOT NULL),
        CONSTRAINT operation_tries CHECK (attempt >= 1 AND tries >= 1),
        CONSTRAINT operation_key CHECK (idempotency_key = 'cartwright-' || id::text)
    )""",
    "CREATE UNIQUE INDEX operation_open ON operation (tenant_id, payment_id) WHERE state IN ('sending', 'unknown')",
    "CREATE INDEX operation_due_at ON operation (due_at) WHERE due_at IS NOT NULL",
)

# What is due belongs to no tenant in particular: these functions of the owner see open operations of all, and tell
# of them no more than their keys and their age. Whoever asked then claims under the tenants' own security.
RECOVERY = (
    "CREATE POLICY owner_finds_open ON operation FOR SELECT TO payments_owner USING (due_at IS NOT NULL)",
    """CREATE FUNCTION operations_due(how_many integer) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT o.tenant_id, o.id FROM operation o WHERE o.due_at <= now() ORDER BY o.due_at LIMIT how_many
    $$""",
    """CREATE FUNCTION operations_open() RETURNS TABLE (open_count bigint, oldest_seconds double precision)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT count(*), coalesce(extract(epoch FROM now() - min(o.first_send_at)), 0)::double precision
        FROM operation o WHERE o.due_at IS NOT NULL
    $$""",
    "REVOKE ALL ON FUNCTION operations_due(integer), operations_open() FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION operations_due(integer), operations_open() TO payments_app",
)


def upgrade() -> None:
    """Make everything."""
    for statement in (*kernel_v1("payments"), *TABLES):
        op.execute(statement)
    for table in ("tenant", "payment", "operation"):
        for statement in protect(table, "payments_app", privileges="SELECT, INSERT, UPDATE"):
            op.execute(statement)
    for statement in RECOVERY:
        op.execute(statement)
