"""The kernel's second step: events set aside by the relay, ids of foreign messages, repairs on record, shorter slots."""

from alembic import op

from libs.common.messaging.schema import kernel_v2

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Expand only."""
    for statement in kernel_v2("cart"):
        op.execute(statement)
