"""What this service keeps of a tenant: what it takes away, and what is deleted once nothing is under way."""

from libs.common.database.holdings import Holdings, UnderWay, but, in_state
from services.checkout.domain.refund import RefundState
from services.checkout.domain.saga import FINAL
from services.checkout.tables.metadata import METADATA

HOLDINGS = Holdings(
    metadata=METADATA,
    left_out=["order_term", "timeline_entry_rebuild"],
    under_way=[
        UnderWay("checkout", but(FINAL)),
        UnderWay("refund", in_state({RefundState.REQUESTED, RefundState.PENDING})),
    ],
)
"""What orders are found by, and what stands beside a projection while it is rebuilt, is in nobody's export."""
