"""A swap that takes from no tenant all its products, whoever asks for it."""

from alembic import op

from libs.common.messaging.rebuild import careful_swap

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Only the function's body changes: what it is called with, and who may, stays."""
    op.execute(careful_swap("product", ["tenant_id", "sku"]))
