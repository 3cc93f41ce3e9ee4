"""Where a payment's payer is led back to, should their bank want to see them."""

from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Expand only."""
    op.execute("ALTER TABLE payment ADD COLUMN return_url text")
