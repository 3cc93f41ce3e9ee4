"""In which cell the rest of a tenant is."""

from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Expand only: all that there are are in the main one."""
    op.execute("ALTER TABLE tenant ADD COLUMN cell text NOT NULL DEFAULT 'main'")
