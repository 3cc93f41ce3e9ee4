"""A shopper's session that took over a guest's."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Expand only: nobody took over anybody so far."""
    op.execute("ALTER TABLE session ADD COLUMN former_subject_id uuid")
