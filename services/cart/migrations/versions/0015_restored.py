"""The kernel's next step: a database that was restored begins a timeline of its own."""

from alembic import op

from libs.common.messaging.schema import kernel_v12

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Expand only."""
    for statement in kernel_v12("cart"):
        op.execute(statement)
