"""The kernel's next step: a database that was restored begins a timeline of its own."""

from alembic import op

from libs.common.messaging.schema import kernel_v12

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Expand only."""
    for statement in kernel_v12("payments"):
        op.execute(statement)
