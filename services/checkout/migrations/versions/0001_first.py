"""Tenants, checkouts, orders, stock, and the messaging kernel; row-level security from the start."""

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
    """CREATE TABLE cart_claim (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        checkout_id uuid NOT NULL,
        CONSTRAINT cart_claim_pkey PRIMARY KEY (tenant_id, id)
    )""",
    """CREATE TABLE checkout (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        subject_id uuid NOT NULL,
        cart_id uuid NOT NULL,
        state text NOT NULL,
        reason text,
        method text NOT NULL,
        email text,
        body_digest text NOT NULL,
        currency text,
        total_minor bigint,
        quote jsonb,
        allocations jsonb NOT NULL,
        order_id uuid NOT NULL,
        payment_id uuid NOT NULL,
        started_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        CONSTRAINT checkout_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT checkout_state CHECK (state IN ('started', 'frozen', 'quoted', 'reserved', 'paying', 'confirmed',
            'canceling', 'expiring', 'failed', 'canceled', 'expired')),
        CONSTRAINT checkout_reason CHECK (state <> 'failed' OR reason IS NOT NULL),
        CONSTRAINT checkout_quoted CHECK (state NOT IN ('paying', 'confirmed') OR quote IS NOT NULL)
    )""",
    """CREATE TABLE customer_order (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        number bigint NOT NULL,
        state text NOT NULL,
        payment_state text NOT NULL,
        fulfilment_state text NOT NULL,
        subject_id uuid NOT NULL,
        checkout_id uuid NOT NULL,
        cart_id uuid NOT NULL,
        payment_id uuid NOT NULL,
        currency text NOT NULL,
        lines jsonb NOT NULL,
        subtotal_minor bigint NOT NULL,
        discount_minor bigint NOT NULL,
        shipping_minor bigint NOT NULL,
        tax_minor bigint NOT NULL,
        total_minor bigint NOT NULL,
        captured_minor bigint NOT NULL,
        placed_at timestamptz NOT NULL,
        CONSTRAINT customer_order_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT customer_order_number UNIQUE (tenant_id, number),
        CONSTRAINT customer_order_checkout UNIQUE (tenant_id, checkout_id),
        CONSTRAINT customer_order_state CHECK (state IN ('confirmed', 'canceled')),
        CONSTRAINT customer_order_total CHECK (
            subtotal_minor - discount_minor + shipping_minor + tax_minor = total_minor AND total_minor >= 0),
        CONSTRAINT customer_order_captured CHECK (captured_minor BETWEEN 0 AND total_minor)
    )""",
    "CREATE INDEX customer_order_of_subject ON customer_order (tenant_id, subject_id, number)",
    """CREATE TABLE stock (
        tenant_id uuid NOT NULL,
        sku text NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        on_hand bigint NOT NULL,
        reserved bigint NOT NULL,
        sold bigint NOT NULL,
        adjusted bigint NOT NULL,
        levels jsonb NOT NULL,
        inventory_sequence bigint NOT NULL,
        CONSTRAINT stock_pkey PRIMARY KEY (tenant_id, sku),
        CONSTRAINT stock_never_negative CHECK (on_hand >= 0 AND reserved >= 0 AND sold >= 0),
        CONSTRAINT stock_conserved CHECK (adjusted = on_hand + reserved + sold)
    ) WITH (fillfactor = 70)""",
    """CREATE TABLE order_counter (
        tenant_id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        last_number bigint NOT NULL,
        CONSTRAINT order_counter_pkey PRIMARY KEY (tenant_id)
    ) WITH (fillfactor = 50)""",
)


def upgrade() -> None:
    """Make everything."""
    for statement in (*kernel_v1("checkout"), *TABLES):
        op.execute(statement)
    for table in ("tenant", "cart_claim", "checkout", "customer_order", "stock", "order_counter"):
        for statement in protect(table, "checkout_app", privileges="SELECT, INSERT, UPDATE"):
            op.execute(statement)
