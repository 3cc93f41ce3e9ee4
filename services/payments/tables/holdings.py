"""What this service keeps of a tenant: what it takes away, and what is deleted once its money has come to its end."""

from libs.common.database.holdings import Holdings, UnderWay, but, in_state
from services.payments.domain.money.dispute import FINAL
from services.payments.domain.payment.payment import OVER
from services.payments.domain.provider.operation import OPEN
from services.payments.tables.metadata import METADATA
from services.payments.tables.refunds import ORPHANED

DUE = "due_at IS NOT NULL"
"""Looked into again by itself, until the provider has said how it ended."""

HOLDINGS = Holdings(
    metadata=METADATA,
    withheld={
        "provider_account": ["webhook_secrets", "master_key_id"],
        "reconciliation_break": ["version", "reconciliation_id", "last_seen_at", "seen_count"],
    },
    left_out=["reconciliation"],
    under_way=[
        UnderWay("payment", f"{but(OVER)} OR {ORPHANED}"),
        UnderWay("operation", in_state(OPEN)),
        UnderWay("refund", DUE),
        UnderWay("dispute", but(FINAL)),
        UnderWay("webhook_event", DUE),
        UnderWay("reconciliation", DUE),
    ],
)
"""Secrets, and what they are sealed with, are in no export; nor when we looked, which we go on doing until nothing is left, and
how often we saw the same: only what was found. Money of no order goes back before anything is erased."""
