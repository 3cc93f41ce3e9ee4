"""The kernel's next step: tenants that move to another cell."""

from alembic import op

from libs.common.messaging.schema import kernel_v13, movable

revision = "0023"
down_revision = "0022"

TABLES = (
    "account_connection",
    "attempt",
    "dispute",
    "ledger_account",
    "ledger_entry",
    "operation",
    "order_payment",
    "payment",
    "provider_account",
    "reconciliation",
    "reconciliation_break",
    "refund",
    "tenant",
    "webhook_event",
)
"""What payments keeps of tenants."""


def upgrade() -> None:
    """Expand only."""
    for statement in (*kernel_v13("payments"), *movable("payments", *TABLES)):
        op.execute(statement)
