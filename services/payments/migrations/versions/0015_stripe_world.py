"""Webhooks of one account for many tenants: whose an event is, by the account or the provider's payment that it names."""

from alembic import op

revision = "0015"
down_revision = "0013"

STATEMENTS = (
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


def upgrade() -> None:
    """Expand only."""
    for statement in STATEMENTS:
        op.execute(statement)
