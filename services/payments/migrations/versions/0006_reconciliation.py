"""Reconciliations, and the breaks they found."""

from alembic import op

revision = "0006"
down_revision = "0005"

TABLES: tuple[str, ...] = ()


def upgrade() -> None:
    """Make everything."""
    for statement in TABLES:
        op.execute(statement)
