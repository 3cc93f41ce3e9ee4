"""The kernel's next step: what a tenant has set aside is found by tenant."""

from alembic import op

from libs.common.messaging.schema import kernel_v9

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Expand only."""
    for statement in kernel_v9():
        op.execute(statement)
