"""A payment says whether its issuer is to ask whoever pays for proof."""

from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Expand only."""
    op.execute("ALTER TABLE payment ADD COLUMN challenge boolean NOT NULL DEFAULT false")
