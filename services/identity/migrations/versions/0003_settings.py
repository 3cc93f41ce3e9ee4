"""What a tenant chose."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Expand only: nothing was chosen so far."""
    op.execute("ALTER TABLE tenant ADD COLUMN settings jsonb NOT NULL DEFAULT '{}'")
