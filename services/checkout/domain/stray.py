"""Money that no live checkout waits for."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs.common.decision import Aggregate


@dataclass(frozen=True, kw_only=True, slots=True)
class StrayMoney(Aggregate):
    """A payment's money that no live checkout waits for, and that payments was asked to let go of or to give back."""

    id: UUID
    """The payment's."""
    checkout_id: UUID
    amount_minor: int
    found_at: datetime
