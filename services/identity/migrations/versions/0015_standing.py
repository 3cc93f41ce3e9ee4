"""Which services know how a tenant stands."""

from alembic import op

revision = "0015"
down_revision = "0014"

COLUMNS = "ADD COLUMN told_version bigint NOT NULL DEFAULT 0, ADD COLUMN acknowledged jsonb NOT NULL DEFAULT '[]'"


def upgrade() -> None:
    """Of those that nobody suspended yet there is nothing to know."""
    op.execute(f"ALTER TABLE tenant {COLUMNS}")
