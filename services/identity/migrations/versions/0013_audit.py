"""The kernel's next step: the audit trail."""

from alembic import op

from libs.common.messaging.schema import kernel_v10

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Expand only."""
    for statement in kernel_v10("identity"):
        op.execute(statement)
