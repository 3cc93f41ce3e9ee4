"""Payments in full: attempts, captures by the part, client-side confirmation, expiry, and what a person decides."""

from alembic import op

from libs.common.tenancy import protect

revision = "0003"
down_revision = "0002"

# Every new column has a default: what the rows of before are to say.
COLUMNS = (
    """ALTER TABLE payment
        ADD COLUMN confirmation text NOT NULL DEFAULT 'server',
        ADD COLUMN charge_id text,
        ADD COLUMN capturing_minor bigint NOT NULL DEFAULT 0,
        ADD COLUMN capturing_final boolean NOT NULL DEFAULT true,
        ADD COLUMN refunding_minor bigint NOT NULL DEFAULT 0,
        ADD COLUMN refunded_minor bigint NOT NULL DEFAULT 0,
        ADD COLUMN attempt_count integer NOT NULL DEFAULT 0,
        ADD COLUMN capture_count integer NOT NULL DEFAULT 0,
        ADD COLUMN order_standing text NOT NULL DEFAULT 'awaited',
        ADD COLUMN operation_id uuid,
        ADD COLUMN operation_attempt integer NOT NULL DEFAULT 1,
        ADD COLUMN operation_at timestamptz,
        ADD COLUMN look_at timestamptz,
        ADD COLUMN look_count integer NOT NULL DEFAULT 0""",
    """ALTER TABLE operation
        ADD COLUMN ordinal integer NOT NULL DEFAULT 1,
        ADD COLUMN total_minor bigint,
        ADD COLUMN unknown_count integer NOT NULL DEFAULT 0,
        ADD COLUMN resolution jsonb""",
)

# The rows there are, brought to what the new constraints say. The owner is under row-level security as anybody is, and
# no tenant is named here: it is lifted for the length of this transaction, which nobody else sees into.
BACKFILL = (
    "ALTER TABLE payment NO FORCE ROW LEVEL SECURITY",
    "ALTER TABLE operation NO FORCE ROW LEVEL SECURITY",
    "UPDATE operation SET total_minor = (request ->> 'amount_minor')::bigint WHERE kind = 'capture'",
    """UPDATE payment p SET operation_id = o.id, operation_at = o.first_send_at, look_at = now(),
        capturing_minor = CASE WHEN o.kind = 'capture' THEN o.total_minor ELSE 0 END,
        capture_count = CASE WHEN o.kind = 'capture' THEN 1 ELSE 0 END
    FROM operation o WHERE o.tenant_id = p.tenant_id AND o.payment_id = p.id AND o.due_at IS NOT NULL""",
    "UPDATE payment SET order_standing = 'confirmed' WHERE requested_capture",
    "UPDATE payment SET capture_count = 1 WHERE state = 'captured'",
    "UPDATE payment SET attempt_count = 1 WHERE intent_id IS NOT NULL",
    "UPDATE payment SET look_at = coalesce(expires_at, now()) WHERE state IN ('authorized', 'requires_action')",
    "ALTER TABLE payment FORCE ROW LEVEL SECURITY",
    "ALTER TABLE operation FORCE ROW LEVEL SECURITY",
)

CONSTRAINTS = (
    """ALTER TABLE payment
        DROP CONSTRAINT payment_captured_within_authorized_within_amount,
        DROP CONSTRAINT payment_captured,
        DROP CONSTRAINT payment_declined,
        ADD CONSTRAINT payment_confirmation CHECK (confirmation IN ('server', 'client')),
        ADD CONSTRAINT payment_order_standing CHECK (order_standing IN ('awaited', 'confirmed', 'canceled')),
        ADD CONSTRAINT payment_captured_within_authorized_within_amount
            CHECK (0 <= captured_minor AND 0 <= capturing_minor AND captured_minor + capturing_minor <= authorized_minor
                AND authorized_minor <= amount_minor),
        ADD CONSTRAINT payment_refunded_within_captured
            CHECK (0 <= refunding_minor AND 0 <= refunded_minor AND refunding_minor + refunded_minor <= captured_minor),
        ADD CONSTRAINT payment_capturing CHECK (capturing_minor = 0 OR state IN ('capturing', 'unknown')),
        ADD CONSTRAINT payment_captured CHECK (captured_minor > 0 OR state <> 'captured'),
        ADD CONSTRAINT payment_taken
            CHECK (captured_minor = 0 OR state IN ('authorized', 'capturing', 'captured', 'unknown')),
        ADD CONSTRAINT payment_declined CHECK (decline_code IS NOT NULL OR state <> 'declined'),
        ADD CONSTRAINT payment_operation CHECK (
            (operation_id IS NOT NULL) = (state IN ('authorizing', 'capturing', 'voiding', 'unknown'))
            AND (operation_id IS NOT NULL) = (operation_at IS NOT NULL))""",
    "CREATE INDEX payment_look_at ON payment (look_at) WHERE look_at IS NOT NULL",
    """ALTER TABLE operation
        DROP CONSTRAINT operation_attempt,
        DROP CONSTRAINT operation_tries,
        ADD CONSTRAINT operation_tries CHECK (ordinal >= 1 AND attempt >= 1 AND tries >= 1 AND unknown_count >= 0),
        ADD CONSTRAINT operation_total CHECK ((kind = 'capture') = (total_minor IS NOT NULL))""",
)

TABLES = (
    """CREATE TABLE attempt (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        payment_id uuid NOT NULL,
        number integer NOT NULL,
        method text NOT NULL,
        state text NOT NULL,
        decline_code text,
        charge_id text,
        created_at timestamptz NOT NULL,
        CONSTRAINT attempt_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT attempt_of_payment FOREIGN KEY (tenant_id, payment_id) REFERENCES payment (tenant_id, id),
        CONSTRAINT attempt_number CHECK (number >= 1),
        CONSTRAINT attempt_state CHECK (state IN ('open', 'succeeded', 'declined', 'abandoned')),
        CONSTRAINT attempt_declined CHECK ((state = 'declined') = (decline_code IS NOT NULL))
    )""",
    "CREATE UNIQUE INDEX attempt_open ON attempt (tenant_id, payment_id) WHERE state = 'open'",
    """CREATE TABLE order_payment (
        tenant_id uuid NOT NULL,
        order_id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        payment_id uuid NOT NULL,
        CONSTRAINT order_payment_pkey PRIMARY KEY (tenant_id, order_id),
        CONSTRAINT order_payment_of_payment FOREIGN KEY (tenant_id, payment_id) REFERENCES payment (tenant_id, id)
    )""",
)

# What is due belongs to no tenant in particular (see 0001): keys and ages, and no more than that.
WATCH = (
    "CREATE POLICY owner_finds_due ON payment FOR SELECT TO payments_owner USING (look_at IS NOT NULL)",
    """CREATE FUNCTION payments_due(how_many integer) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT p.tenant_id, p.id FROM payment p WHERE p.look_at <= now() ORDER BY p.look_at LIMIT how_many
    $$""",
    # A payment that waits for its payer is looked at at least once a minute, so the near end of the index has them all.
    """CREATE FUNCTION payments_watched(ladder integer)
    RETURNS TABLE (unknown_count bigint, oldest_unknown_seconds double precision, queued_count bigint, challenged_count bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT count(*), coalesce(extract(epoch FROM now() - min(o.first_send_at)), 0)::double precision,
            count(*) FILTER (WHERE o.unknown_count > ladder),
            (SELECT count(*) FROM payment p WHERE p.state = 'requires_action' AND p.look_at < now() + interval '2 minutes')
        FROM operation o WHERE o.due_at IS NOT NULL AND o.state = 'unknown'
    $$""",
    "REVOKE ALL ON FUNCTION payments_due(integer), payments_watched(integer) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION payments_due(integer), payments_watched(integer) TO payments_app",
)


def upgrade() -> None:
    """Widen what there is, then bring the rows to it, then hold them to it."""
    for statement in (*COLUMNS, *BACKFILL, *CONSTRAINTS, *TABLES):
        op.execute(statement)
    for table, privileges in (("attempt", "SELECT, INSERT, UPDATE"), ("order_payment", "SELECT, INSERT, UPDATE")):
        for statement in protect(table, "payments_app", privileges=privileges):
            op.execute(statement)
    for statement in WATCH:
        op.execute(statement)
