"""The kernel's next step: tenants that move to another cell."""

from alembic import op

from libs.common.messaging.schema import kernel_v13, movable

revision = "0017"
down_revision = "0016"

TABLES = (
    "cart",
    "offers",
    "product",
    "promotion",
    "stock_hint",
    "tenant",
)
"""What cart keeps of tenants."""


def upgrade() -> None:
    """Expand only."""
    for statement in (*kernel_v13("cart"), *movable("cart", *TABLES)):
        op.execute(statement)
