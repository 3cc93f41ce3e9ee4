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

# Of tenants of other cells there is nothing here to compare with: all that the provider has of them would look lost.
DUE = "reconciliations_due(interval, interval, integer, text)"
FUNCTIONS = (
    """CREATE FUNCTION reconciliations_due(every interval, every_quiet interval, how_many integer, here text)
    RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT r.tenant_id, r.id FROM reconciliation r
        WHERE r.due_at <= now() AND NOT EXISTS (SELECT FROM tenant t WHERE t.tenant_id = r.tenant_id AND t.cell <> here)
        UNION ALL
        SELECT t.tenant_id, NULL FROM tenant t WHERE every IS NOT NULL AND t.cell = here AND NOT EXISTS (
            SELECT FROM reconciliation r WHERE r.tenant_id = t.tenant_id
            AND (r.finished_at IS NULL OR r.started_at > now() - every)
        ) AND (
            EXISTS (SELECT FROM payment p WHERE p.tenant_id = t.tenant_id AND p.intent_id IS NOT NULL)
            OR NOT EXISTS (
                SELECT FROM reconciliation r WHERE r.tenant_id = t.tenant_id AND r.started_at > now() - every_quiet
            )
        )
        LIMIT how_many
    $$""",
    f"REVOKE ALL ON FUNCTION {DUE} FROM PUBLIC",
    f"GRANT EXECUTE ON FUNCTION {DUE} TO payments_app",
)


def upgrade() -> None:
    """Expand only: processes of the release before ask with three arguments."""
    for statement in (*kernel_v13("payments"), *movable("payments", *TABLES), *FUNCTIONS):
        op.execute(statement)
