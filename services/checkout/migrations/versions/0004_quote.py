"""What a quote is made of: shipping methods and tax rates; where an order goes; what is sold beyond the shelf."""

from alembic import op

from libs.common.tenancy import protect

revision = "0004"
down_revision = "0003"

TABLES = (
    """CREATE TABLE shipping_method (
        tenant_id uuid NOT NULL,
        code text NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        name text NOT NULL,
        kind text NOT NULL,
        currency text NOT NULL,
        rates jsonb NOT NULL,
        deleted_at timestamptz,
        CONSTRAINT shipping_method_pkey PRIMARY KEY (tenant_id, code),
        CONSTRAINT shipping_method_kind CHECK (kind IN ('flat', 'weight', 'value')),
        CONSTRAINT shipping_method_rates CHECK (jsonb_array_length(rates) > 0)
    )""",
    """CREATE TABLE tax_table (
        tenant_id uuid NOT NULL,
        country text NOT NULL,
        version bigint NOT NULL,
        sequence bigint NOT NULL,
        rates jsonb NOT NULL,
        CONSTRAINT tax_table_pkey PRIMARY KEY (tenant_id, country),
        CONSTRAINT tax_table_country CHECK (country ~ '^[A-Z]{2}$')
    )""",
)

COLUMNS = (
    """ALTER TABLE checkout
        ADD COLUMN shipping_method text,
        ADD COLUMN shipping_address jsonb,
        ADD COLUMN billing_address jsonb""",
    """ALTER TABLE customer_order
        ADD COLUMN tax_included boolean NOT NULL DEFAULT false,
        ADD COLUMN shipping_method text,
        ADD COLUMN shipping_address jsonb,
        ADD COLUMN quote_hash text,
        DROP CONSTRAINT customer_order_total,
        ADD CONSTRAINT customer_order_total CHECK (
            subtotal_minor - discount_minor + shipping_minor + CASE WHEN tax_included THEN 0 ELSE tax_minor END = total_minor
            AND total_minor >= 0)""",
    """ALTER TABLE stock
        ADD COLUMN policy text NOT NULL DEFAULT 'tracked',
        ADD COLUMN promised bigint NOT NULL DEFAULT 0,
        ADD COLUMN owed bigint NOT NULL DEFAULT 0,
        ADD COLUMN holds jsonb NOT NULL DEFAULT '{}',
        ADD CONSTRAINT stock_policy CHECK (policy IN ('tracked', 'backorder', 'untracked')),
        ADD CONSTRAINT stock_backordered CHECK (promised >= 0 AND owed >= 0 AND (owed = 0 OR on_hand = 0))""",
)


def upgrade() -> None:
    """Expand only: what runs on the older code goes on as if nothing were configured."""
    for statement in (*TABLES, *COLUMNS):
        op.execute(statement)
    for table in ("shipping_method", "tax_table"):
        for statement in protect(table, "checkout_app", privileges="SELECT, INSERT, UPDATE"):
            op.execute(statement)
