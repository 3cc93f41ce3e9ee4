"""Whether the buyer takes prices that rose since they filled their cart."""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Expand only: a checkout that runs on the older code takes none."""
    op.execute("ALTER TABLE checkout ADD COLUMN accept_price_changes boolean NOT NULL DEFAULT false")
