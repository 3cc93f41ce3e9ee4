"""The kernel's next step: tenants that are erased."""

from alembic import op

from libs.common.messaging.schema import erasable, kernel_v11

revision = "0014"
down_revision = "0013"

TABLES = (
    "cart",
    "product",
    "product_rebuild",
    "tenant",
)
"""What cart keeps of tenants."""


def upgrade() -> None:
    """Expand only."""
    for statement in (*kernel_v11("cart"), *erasable("cart", *TABLES)):
        op.execute(statement)
