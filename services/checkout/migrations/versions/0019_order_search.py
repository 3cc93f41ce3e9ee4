"""Orders are found by what is in them, by who bought them, and by where they stand: each on an index that its tenant leads."""

from alembic import op

from libs.common.messaging.schema import erasable
from libs.common.tenancy import protect

revision = "0019"
down_revision = "0018"

TERMS = """
    SELECT o.tenant_id, 'sku' AS kind, line ->> 'sku' AS term, o.number
    FROM customer_order o, jsonb_array_elements(o.lines) AS line
    UNION
    SELECT o.tenant_id, 'email', lower(c.email), o.number
    FROM customer_order o JOIN checkout c ON c.tenant_id = o.tenant_id AND c.id = o.checkout_id
    WHERE c.email IS NOT NULL"""
SEEN = ("customer_order", "checkout")
STATEMENTS = (
    """CREATE TABLE order_term (
    tenant_id uuid NOT NULL,
    kind text NOT NULL,
    term text NOT NULL,
    number bigint NOT NULL,
    CONSTRAINT order_term_pkey PRIMARY KEY (tenant_id, kind, term, number),
    CONSTRAINT order_term_kind CHECK (kind IN ('sku', 'email'))
)""",
    # The owner sees no tenant's rows but while it makes the terms of the orders there are.
    *(f"CREATE POLICY owner_makes_terms ON {table} FOR SELECT TO checkout_owner USING (true)" for table in SEEN),
    f"INSERT INTO order_term (tenant_id, kind, term, number) {TERMS}",
    *(f"DROP POLICY owner_makes_terms ON {table}" for table in SEEN),
    """CREATE FUNCTION order_terms() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
    BEGIN
        INSERT INTO order_term (tenant_id, kind, term, number)
        SELECT NEW.tenant_id, 'sku', line ->> 'sku', NEW.number FROM jsonb_array_elements(NEW.lines) AS line
        UNION
        SELECT NEW.tenant_id, 'email', lower(c.email), NEW.number FROM checkout c
        WHERE c.tenant_id = NEW.tenant_id AND c.id = NEW.checkout_id AND c.email IS NOT NULL;
        RETURN NULL;
    END $$""",
    "REVOKE ALL ON FUNCTION order_terms() FROM PUBLIC",
    "CREATE TRIGGER order_terms AFTER INSERT ON customer_order FOR EACH ROW EXECUTE FUNCTION order_terms()",
    "CREATE INDEX customer_order_by_state ON customer_order (tenant_id, state, number)",
    "CREATE INDEX customer_order_by_payment_state ON customer_order (tenant_id, payment_state, number)",
    "CREATE INDEX customer_order_by_time ON customer_order (tenant_id, placed_at)",
)


def upgrade() -> None:
    """Expand only."""
    protected = protect("order_term", "checkout_app", privileges="SELECT, INSERT")
    for statement in (*STATEMENTS, *protected, *erasable("checkout", "order_term")):
        op.execute(statement)
