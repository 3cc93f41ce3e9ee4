"""Timers; what a checkout waits for; orders after their confirmation, their refunds and notes; money that strayed."""

from alembic import op

from libs.common.messaging.schema import kernel_v3
from libs.common.tenancy import protect

revision = "0003"
down_revision = "0002"

COLUMNS = (
    """ALTER TABLE checkout
        ADD COLUMN confirmation text NOT NULL DEFAULT 'server',
        ADD COLUMN action_required boolean NOT NULL DEFAULT false,
        ADD CONSTRAINT checkout_confirmation CHECK (confirmation IN ('server', 'client')),
        DROP CONSTRAINT checkout_reason,
        ADD CONSTRAINT checkout_reason CHECK (
            (state IN ('canceling', 'expiring', 'failed', 'canceled', 'expired')) = (reason IS NOT NULL)),
        DROP CONSTRAINT checkout_quoted,
        ADD CONSTRAINT checkout_quoted CHECK (
            state NOT IN ('paying', 'confirmed', 'canceling', 'expiring') OR quote IS NOT NULL)""",
    """ALTER TABLE customer_order
        ADD COLUMN reason text,
        ADD COLUMN refunding_minor bigint NOT NULL DEFAULT 0,
        ADD COLUMN refunded_minor bigint NOT NULL DEFAULT 0,
        ADD COLUMN disputes jsonb NOT NULL DEFAULT '{}',
        ADD COLUMN progress jsonb NOT NULL DEFAULT '{}',
        ADD COLUMN shipments jsonb NOT NULL DEFAULT '{}',
        ADD COLUMN returns jsonb NOT NULL DEFAULT '{}',
        ADD COLUMN allocations jsonb NOT NULL DEFAULT '[]',
        ADD CONSTRAINT customer_order_reason CHECK ((state = 'canceled') = (reason IS NOT NULL)),
        ADD CONSTRAINT customer_order_payment_state CHECK (
            payment_state IN ('authorized', 'captured', 'partially_refunded', 'refunded', 'disputed')),
        ADD CONSTRAINT customer_order_fulfilment_state CHECK (
            fulfilment_state IN ('unfulfilled', 'partially_fulfilled', 'fulfilled', 'delivered', 'returned')),
        ADD CONSTRAINT customer_order_refunded CHECK (
            refunding_minor >= 0 AND refunded_minor >= 0 AND refunding_minor + refunded_minor <= total_minor)""",
)

# Orders from before: from where their goods were sold. The owner is under the tables' security like anybody, and steps out
# of it for this one transaction.
BACKFILL = (
    "ALTER TABLE customer_order NO FORCE ROW LEVEL SECURITY",
    "ALTER TABLE checkout NO FORCE ROW LEVEL SECURITY",
    """UPDATE customer_order o SET allocations = c.allocations
    FROM checkout c WHERE c.tenant_id = o.tenant_id AND c.id = o.checkout_id""",
    "ALTER TABLE customer_order FORCE ROW LEVEL SECURITY",
    "ALTER TABLE checkout FORCE ROW LEVEL SECURITY",
)

TABLES = (
    """CREATE TABLE stray_money (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        checkout_id uuid NOT NULL,
        amount_minor bigint NOT NULL,
        found_at timestamptz NOT NULL,
        CONSTRAINT stray_money_pkey PRIMARY KEY (tenant_id, id)
    )""",
    """CREATE TABLE refund (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        order_id uuid NOT NULL,
        payment_id uuid NOT NULL,
        state text NOT NULL,
        code text,
        amount_minor bigint NOT NULL,
        currency text NOT NULL,
        lines jsonb NOT NULL,
        restock boolean NOT NULL,
        is_restocked boolean NOT NULL,
        reason text NOT NULL,
        requested_at timestamptz NOT NULL,
        CONSTRAINT refund_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT refund_of_order FOREIGN KEY (tenant_id, order_id) REFERENCES customer_order (tenant_id, id),
        CONSTRAINT refund_state CHECK (state IN ('requested', 'pending', 'succeeded', 'failed')),
        CONSTRAINT refund_amount CHECK (amount_minor > 0),
        CONSTRAINT refund_code CHECK ((state = 'failed') = (code IS NOT NULL)),
        CONSTRAINT refund_restocked CHECK (restock OR NOT is_restocked)
    )""",
    "CREATE INDEX refund_of_order_by_id ON refund (tenant_id, order_id, id)",
    """CREATE TABLE order_note (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        order_id uuid NOT NULL,
        body text NOT NULL,
        author text NOT NULL,
        written_at timestamptz NOT NULL,
        CONSTRAINT order_note_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT order_note_of_order FOREIGN KEY (tenant_id, order_id) REFERENCES customer_order (tenant_id, id)
    )""",
    "CREATE INDEX order_note_of_order_by_id ON order_note (tenant_id, order_id, id)",
)


def upgrade() -> None:
    """Expand only."""
    for statement in (*kernel_v3("checkout"), *COLUMNS, *BACKFILL, *TABLES):
        op.execute(statement)
    for table in ("stray_money", "refund", "order_note"):
        for statement in protect(table, "checkout_app", privileges="SELECT, INSERT, UPDATE"):
            op.execute(statement)
