"""The kernel's next step: the audit trail."""

from alembic import op

from libs.common.messaging.schema import kernel_v10

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Expand only."""
    for statement in kernel_v10("payments"):
        op.execute(statement)
