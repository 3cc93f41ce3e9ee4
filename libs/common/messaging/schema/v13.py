"""The kernel's thirteenth step: tenants that move to another cell (ADR 0050)."""

from collections.abc import Sequence

from libs.common.messaging.schema.v11 import erasable
from libs.common.tenancy import TENANT_IS_PRESENT, protect

KERNEL_TABLES = ("idempotency_key", "inbox_parked", "inbox_source", "inbox_source_range", "audit_entry", "audit_head")
"""What the kernel keeps of tenants, and they take along. The outbox is empty of them by then."""


MOVES = "owner_moves_tenants"
"""The policy of a table that says so."""


def kernel_v13(service: str) -> Sequence[str]:
    """Expand only. A tenant's row says in which cell it is; of one that is elsewhere nothing is decided here.

    Who decides looks into `erasure` anyway, which is nearly empty: so a tenant that stands as `elsewhere` has a row there.
    """
    return [
        "ALTER TABLE tenant ADD COLUMN cell text NOT NULL DEFAULT 'main'",
        "ALTER TABLE erasure ADD COLUMN cell text",
        _CLOSE,
        _OPEN,
        "REVOKE ALL ON FUNCTION door_closes(), door_opens() FROM PUBLIC",
        """CREATE TRIGGER door_closes AFTER INSERT OR UPDATE ON tenant FOR EACH ROW
            WHEN (NEW.status = 'elsewhere') EXECUTE FUNCTION door_closes()""",
        """CREATE TRIGGER door_opens AFTER UPDATE ON tenant FOR EACH ROW
            WHEN (OLD.status = 'elsewhere' AND NEW.status <> 'elsewhere') EXECUTE FUNCTION door_opens()""",
        _DEPARTURE,
        *protect("departure", f"{service}_app", privileges="SELECT"),
        *movable(service, "departure", *KERNEL_TABLES),
        *erasable(service, "departure"),
    ]


def movable(service: str, *tables: str) -> Sequence[str]:
    """What lets the owner move rows of these tables, one tenant's at a time: whoever logs in as the owner, and no function."""
    owner = f"{service}_owner"
    present = f"session_user = '{owner}' AND {TENANT_IS_PRESENT}"
    return [f"CREATE POLICY {MOVES} ON {each} TO {owner} USING ({present}) WITH CHECK ({present})" for each in tables]


_CLOSE = """CREATE FUNCTION door_closes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO erasure (tenant_id, cell) VALUES (NEW.tenant_id, NEW.cell)
    ON CONFLICT (tenant_id) DO UPDATE SET cell = excluded.cell;
    RETURN NULL;
END $$"""

_OPEN = """CREATE FUNCTION door_opens() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    DELETE FROM erasure e WHERE e.tenant_id = NEW.tenant_id AND e.cell IS NOT NULL;
    RETURN NULL;
END $$"""

# How it and everything stood when a tenant left: from there on its messages are the other cell's.
_DEPARTURE = """CREATE TABLE departure (
    tenant_id uuid NOT NULL,
    cell text NOT NULL,
    departed_at timestamptz NOT NULL DEFAULT now(),
    tenant jsonb NOT NULL,
    positions jsonb NOT NULL,
    sources jsonb NOT NULL,
    ranges jsonb NOT NULL,
    CONSTRAINT departure_pkey PRIMARY KEY (tenant_id)
)"""
