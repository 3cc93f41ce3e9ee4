"""Tenants, products, carts, and the messaging kernel; row-level security from the start."""

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
    """CREATE TABLE product (
        tenant_id uuid NOT NULL,
        sku text NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        name text NOT NULL,
        category text NOT NULL,
        weight_grams integer,
        prices jsonb NOT NULL,
        described_sequence bigint NOT NULL,
        withdrawn_sequence bigint NOT NULL,
        CONSTRAINT product_pkey PRIMARY KEY (tenant_id, sku)
    )""",
    """CREATE TABLE cart (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        subject_id uuid NOT NULL,
        state text NOT NULL,
        currency text NOT NULL,
        lines jsonb NOT NULL,
        checkout_id uuid,
        order_id uuid,
        expires_at timestamptz NOT NULL,
        CONSTRAINT cart_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT cart_state CHECK (state IN ('open', 'frozen', 'ordered', 'merged', 'expired')),
        CONSTRAINT cart_checkout CHECK ((state IN ('frozen', 'ordered')) = (checkout_id IS NOT NULL)),
        CONSTRAINT cart_order CHECK ((state = 'ordered') = (order_id IS NOT NULL))
    )""",
    "CREATE INDEX cart_of_subject ON cart (tenant_id, subject_id, id)",
    "CREATE UNIQUE INDEX cart_id_not_available ON cart (id)",
)


def upgrade() -> None:
    """Make everything."""
    for statement in (*kernel_v1("cart"), *TABLES):
        op.execute(statement)
    for table in ("tenant", "product", "cart"):
        for statement in protect(table, "cart_app", privileges="SELECT, INSERT, UPDATE"):
            op.execute(statement)
