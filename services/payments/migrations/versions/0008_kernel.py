"""The kernel's next step: parked messages belong to their tenants."""

from alembic import op

from libs.common.messaging.schema import kernel_v5

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Expand only: the tables' columns stay as they are."""
    for statement in kernel_v5("payments"):
        op.execute(statement)
