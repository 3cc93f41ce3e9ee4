"""What an order's discount is made of."""

from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Expand only."""
    op.execute("ALTER TABLE customer_order ADD COLUMN discounts jsonb NOT NULL DEFAULT '[]'")
