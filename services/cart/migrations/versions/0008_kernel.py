"""The kernel's next step: messages that wait for what they refer to."""

from alembic import op

from libs.common.messaging.schema import kernel_v6

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Expand only."""
    for statement in kernel_v6():
        op.execute(statement)
