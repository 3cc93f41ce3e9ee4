"""The kernel's next step: the fence is locked first and looked through then."""

from alembic import op

from libs.common.messaging.schema import kernel_v9

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Expand only."""
    for statement in kernel_v9("identity"):
        op.execute(statement)
