"""The kernel's next step: tenants that move to another cell."""

from alembic import op

from libs.common.messaging.schema import kernel_v13, movable

revision = "0023"
down_revision = "0022"

TABLES = (
    "cart_claim",
    "checkout",
    "customer_order",
    "declines",
    "drop_place",
    "order_counter",
    "order_note",
    "order_term",
    "product_drop",
    "refund",
    "shipping_method",
    "stock",
    "stray_money",
    "tax_table",
    "tenant",
    "timeline_entry",
    "timer",
)
"""What checkout keeps of tenants."""


def upgrade() -> None:
    """Expand only."""
    for statement in (*kernel_v13("checkout"), *movable("checkout", *TABLES)):
        op.execute(statement)
