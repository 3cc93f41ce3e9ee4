"""Which checkout of its shopper's a cart was last given to: a later one need not wait to hear that it is over."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Expand only."""
    op.execute("ALTER TABLE cart ADD COLUMN checkout_attempt bigint NOT NULL DEFAULT 0")
