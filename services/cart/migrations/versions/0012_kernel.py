"""The kernel's next step: what a tenant has set aside is found by tenant."""

from alembic import op

from libs.common.messaging.schema import kernel_v9

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Expand only."""
    for statement in kernel_v9():
        op.execute(statement)
