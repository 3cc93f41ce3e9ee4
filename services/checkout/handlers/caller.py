"""Who gives a command, as far as a decision needs to know."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whose checkouts and orders a command may touch: a shopper's own, or any of the tenant."""

    subject_id: UUID
    sees_all: bool

    def sees(self, subject_id: UUID) -> bool:
        """Whether what belongs to this subject is any of the caller's business."""
        return self.sees_all or subject_id == self.subject_id
