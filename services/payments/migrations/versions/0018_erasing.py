"""The kernel's next step: tenants that are erased, with their part of the ledger."""

from alembic import op

from libs.common.messaging.schema import erasable, kernel_v11

revision = "0018"
down_revision = "0017"

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

# The ledger stands, but for a tenant that is being erased: row by row, whoever asks.
LEDGER = (
    """CREATE OR REPLACE FUNCTION ledger_stands() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        IF TG_OP = 'DELETE' THEN
            PERFORM FROM erasure e WHERE e.sha256 IS NOT NULL AND e.erased_at IS NULL
                AND (TG_LEVEL = 'STATEMENT' OR e.tenant_id = OLD.tenant_id);
            IF FOUND THEN
                RETURN OLD;
            END IF;
        END IF;
        RAISE EXCEPTION 'the ledger is never changed: post another entry, the other way round'
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'ledger_stands';
    END $$""",
    *(
        f"CREATE TRIGGER {table}_row_stands BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION ledger_stands()"
        for table in ("ledger_account", "ledger_entry")
    ),
)


def upgrade() -> None:
    """Expand only."""
    for statement in (*kernel_v11("payments"), *erasable("payments", *TABLES), *LEDGER):
        op.execute(statement)
