"""Payments in full: attempts, captures by the part, client-side confirmation, expiry."""

from alembic import op

revision = "0003"
down_revision = " refunds, disputes, captures by the part, and the ledger:0002"

TABLES: tuple[str, ...] = ()


def upgrade() -> None:
    """Make everything."""
    for statement in TABLES:
        op.execute(statement)
