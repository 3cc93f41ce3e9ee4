"""One account for many tenants, whose webhooks are told apart; and accounts that are settled in another currency."""

from alembic import op

revision = "0015"
down_revision = "0014"

WEBHOOKS = (
    "CREATE INDEX payment_by_intent ON payment (intent_id) WHERE intent_id IS NOT NULL",
    "CREATE POLICY owner_finds_by_intent ON payment FOR SELECT TO payments_owner USING (intent_id IS NOT NULL)",
    # It tells no more than whose: what is done about it is done in that tenant's own transaction.
    """CREATE FUNCTION webhook_owners(of_account text, of_intent text) RETURNS TABLE (tenant_id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
        SELECT a.tenant_id FROM provider_account a WHERE a.account_id = of_account
        UNION
        SELECT p.tenant_id FROM payment p WHERE of_account IS NULL AND p.intent_id = of_intent
    $$""",
    "REVOKE ALL ON FUNCTION webhook_owners(text, text) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION webhook_owners(text, text) TO payments_app",
)

# What is there satisfies the wider checks already, so they are looked through without keeping anybody out.
EXCHANGE = (
    """ALTER TABLE ledger_account DROP CONSTRAINT ledger_account_code, ADD CONSTRAINT ledger_account_code CHECK (code IN
        ('provider_balance', 'sales', 'provider_fees', 'refunds', 'chargebacks', 'dispute_fees', 'exchange')) NOT VALID""",
    "ALTER TABLE ledger_account VALIDATE CONSTRAINT ledger_account_code",
    """ALTER TABLE ledger_entry
        ADD COLUMN exchange_rate text,
        ADD CONSTRAINT ledger_entry_exchange CHECK (exchange_rate IS NULL
            OR kind IN ('exchange_out', 'exchange_in') AND exchange_rate ~ '^[0-9]+([.][0-9]+)?$') NOT VALID,
        DROP CONSTRAINT ledger_entry_kind,
        ADD CONSTRAINT ledger_entry_kind CHECK (
            kind = 'capture' AND debit = 'provider_balance' AND credit = 'sales'
            OR kind = 'fee' AND debit = 'provider_fees' AND credit = 'provider_balance'
            OR kind = 'fee_return' AND debit = 'provider_balance' AND credit = 'provider_fees'
            OR kind = 'refund' AND debit = 'refunds' AND credit = 'provider_balance'
            OR kind = 'refund_return' AND debit = 'provider_balance' AND credit = 'refunds'
            OR kind = 'chargeback' AND debit = 'chargebacks' AND credit = 'provider_balance'
            OR kind = 'chargeback_return' AND debit = 'provider_balance' AND credit = 'chargebacks'
            OR kind = 'dispute_fee' AND debit = 'dispute_fees' AND credit = 'provider_balance'
            OR kind = 'dispute_fee_return' AND debit = 'provider_balance' AND credit = 'dispute_fees'
            OR kind = 'exchange_out' AND debit = 'exchange' AND credit = 'provider_balance'
            OR kind = 'exchange_in' AND debit = 'provider_balance' AND credit = 'exchange') NOT VALID""",
    "ALTER TABLE ledger_entry VALIDATE CONSTRAINT ledger_entry_exchange",
    "ALTER TABLE ledger_entry VALIDATE CONSTRAINT ledger_entry_kind",
    """ALTER TABLE dispute ADD COLUMN fee_currency text,
        ADD CONSTRAINT dispute_fee_currency CHECK (char_length(fee_currency) = 3)""",
)


def upgrade() -> None:
    """Expand only."""
    for statement in (*WEBHOOKS, *EXCHANGE):
        op.execute(statement)
