"""The kernel's next step: the number of partitions each topic had at first, and an end for decisions of long ago."""

from alembic import op

from libs.common.messaging.schema import kernel_v4

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Expand only."""
    for statement in kernel_v4("checkout"):
        op.execute(statement)
