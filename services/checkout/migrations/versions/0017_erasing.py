"""The kernel's next step: tenants that are erased."""

from alembic import op

from libs.common.messaging.schema import erasable, kernel_v11

revision = "0017"
down_revision = "0016"

TABLES = (
    "cart_claim",
    "checkout",
    "customer_order",
    "declines",
    "order_counter",
    "order_note",
    "refund",
    "shipping_method",
    "stock",
    "stray_money",
    "tax_table",
    "tenant",
    "timeline_entry",
    "timeline_entry_rebuild",
    "timer",
)
"""What checkout keeps of tenants."""


def upgrade() -> None:
    """Expand only."""
    for statement in (*kernel_v11("checkout"), *erasable("checkout", *TABLES)):
        op.execute(statement)
