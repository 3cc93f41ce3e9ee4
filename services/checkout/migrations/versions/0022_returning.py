"""Where a checkout's buyer is led back to, should their bank want to see them."""

from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Expand only."""
    op.execute("ALTER TABLE checkout ADD COLUMN return_url text")
