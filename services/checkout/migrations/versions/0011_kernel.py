"""The kernel's next step: a stored position knows the log that it is a position of."""

from alembic import op

from libs.common.messaging.schema import kernel_v7

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Expand only."""
    for statement in kernel_v7("checkout"):
        op.execute(statement)
