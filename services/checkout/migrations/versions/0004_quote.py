"""What a quote is made of."""

from alembic import op

revision = "0004"
down_revision = " shipping methods and tax rates:0003"

TABLES: tuple[str, ...] = ()


def upgrade() -> None:
    """Make everything."""
    for statement in TABLES:
        op.execute(statement)
