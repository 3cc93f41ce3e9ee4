"""The kernel's next step: sources that are paused."""

from alembic import op

from libs.common.messaging.schema import kernel_v8

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Expand only."""
    for statement in kernel_v8("payments"):
        op.execute(statement)
