"""The kernel's next step: messages that wait for what they refer to."""

from alembic import op

from libs.common.messaging.schema import kernel_v6

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Expand only."""
    for statement in kernel_v6():
        op.execute(statement)
