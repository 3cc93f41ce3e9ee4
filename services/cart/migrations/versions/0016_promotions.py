"""Promotions, what of them has to be known beforehand, what a cart is given of them, and hints of stock."""

from alembic import op

from libs.common.messaging.schema import erasable
from libs.common.tenancy import protect

revision = "0016"
down_revision = "0015"

STATEMENTS = (
    """ALTER TABLE cart
        ADD COLUMN coupons jsonb NOT NULL DEFAULT '[]',
        ADD COLUMN discounts jsonb NOT NULL DEFAULT '[]',
        ADD COLUMN put_discount_minor bigint NOT NULL DEFAULT 0""",
    """CREATE TABLE promotion (
    tenant_id uuid NOT NULL,
    code text NOT NULL,
    version bigint NOT NULL,
    sequence bigint NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    basis_points integer,
    amount_minor bigint,
    currency text,
    skus jsonb NOT NULL,
    categories jsonb NOT NULL,
    minimum_subtotal_minor bigint,
    valid_from timestamptz,
    valid_until timestamptz,
    requires_coupon boolean NOT NULL,
    max_uses bigint,
    used_count bigint NOT NULL,
    priority integer NOT NULL,
    exclusive boolean NOT NULL,
    deleted_at timestamptz,
    CONSTRAINT promotion_pkey PRIMARY KEY (tenant_id, code),
    CONSTRAINT promotion_kind CHECK (kind IN ('percentage', 'amount')),
    CONSTRAINT promotion_percentage CHECK ((kind = 'percentage') = coalesce(basis_points BETWEEN 1 AND 10000, false)),
    CONSTRAINT promotion_amount CHECK ((kind = 'amount') = coalesce(amount_minor > 0, false)),
    CONSTRAINT promotion_currency CHECK (currency IS NOT NULL OR (amount_minor IS NULL AND minimum_subtotal_minor IS NULL)),
    CONSTRAINT promotion_time CHECK (valid_from < valid_until),
    CONSTRAINT promotion_never_overused CHECK (used_count >= 0 AND used_count <= max_uses)
) WITH (fillfactor = 50)""",
    """CREATE TABLE offers (
    tenant_id uuid NOT NULL,
    version bigint NOT NULL,
    sequence bigint NOT NULL,
    automatic jsonb NOT NULL,
    limited jsonb NOT NULL,
    CONSTRAINT offers_pkey PRIMARY KEY (tenant_id)
)""",
    """CREATE TABLE stock_hint (
    tenant_id uuid NOT NULL,
    sku text NOT NULL,
    version bigint NOT NULL,
    sequence bigint NOT NULL,
    availability text NOT NULL,
    told_sequence bigint NOT NULL,
    CONSTRAINT stock_hint_pkey PRIMARY KEY (tenant_id, sku),
    CONSTRAINT stock_hint_availability CHECK (
        availability IN ('in_stock', 'low_stock', 'backorder', 'out_of_stock', 'unknown'))
)""",
)
TABLES = ("promotion", "offers", "stock_hint")


def upgrade() -> None:
    """Expand only."""
    for statement in STATEMENTS:
        op.execute(statement)
    for table in TABLES:
        for statement in protect(table, "cart_app", privileges="SELECT, INSERT, UPDATE"):
            op.execute(statement)
    for statement in erasable("cart", *TABLES):
        op.execute(statement)
