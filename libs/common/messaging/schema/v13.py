"""The kernel's thirteenth step: tenants that move to another cell (ADR 0050)."""

from collections.abc import Sequence

from libs.common.tenancy import TENANT_IS_PRESENT

KERNEL_TABLES = ("idempotency_key", "inbox_parked", "inbox_source", "inbox_source_range", "audit_entry", "audit_head")
"""What the kernel keeps of tenants, and they take along. The outbox is empty of them by then."""


MOVES = "owner_moves_tenants"
"""The policy of a table that says so."""


def kernel_v13(service: str) -> Sequence[str]:
    """Expand only. A tenant's row says in which cell it is; of one that is elsewhere nothing is decided here."""
    return [
        "ALTER TABLE tenant ADD COLUMN cell text NOT NULL DEFAULT 'main'",
        _DEPARTURE,
        "ALTER TABLE departure ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE departure FORCE ROW LEVEL SECURITY",
        *movable(service, "departure", *KERNEL_TABLES),
    ]


def movable(service: str, *tables: str) -> Sequence[str]:
    """What lets the owner move rows of these tables, one tenant's at a time: whoever logs in as the owner, and no function."""
    owner = f"{service}_owner"
    present = f"session_user = '{owner}' AND {TENANT_IS_PRESENT}"
    return [f"CREATE POLICY {MOVES} ON {each} TO {owner} USING ({present}) WITH CHECK ({present})" for each in tables]


# Where everything stood when a tenant left: from there on its messages are the other cell's.
_DEPARTURE = """CREATE TABLE departure (
    tenant_id uuid NOT NULL,
    cell text NOT NULL,
    departed_at timestamptz NOT NULL DEFAULT now(),
    positions jsonb NOT NULL,
    sources jsonb NOT NULL,
    ranges jsonb NOT NULL,
    CONSTRAINT departure_pkey PRIMARY KEY (tenant_id)
)"""
