"""What staff wrote down about an order."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs.common.decision import Aggregate


@dataclass(frozen=True, kw_only=True, slots=True)
class Note(Aggregate):
    """One remark, never changed. It stays in this service's database: no event carries it."""

    id: UUID
    order_id: UUID
    body: str
    author: str
    """The subject who wrote it."""
    written_at: datetime
