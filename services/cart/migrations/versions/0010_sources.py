"""The kernel's next step: sources that are paused."""

from alembic import op

from libs.common.messaging.schema import kernel_v8

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Expand only."""
    for statement in kernel_v8("cart"):
        op.execute(statement)
