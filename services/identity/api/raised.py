"""What this process issues beside what was revoked: a new token lies above every epoch that would end it."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from libs.common.decision import Aggregate
from libs.common.revocations import Revocations, mark
from services.identity.domain.access import Grant
from services.identity.domain.revocation import Epoch, milliseconds

LIFTED = timedelta(seconds=5)
"""So far may an epoch lie ahead, by its margin and by another process's clock, for new tokens to be issued above it."""


class Raised:
    """The epochs of those to whom tokens are issued here."""

    def __init__(self, revocations: Revocations) -> None:
        self._revocations = revocations

    def learn(self, committed: Sequence[Aggregate]) -> None:
        """What was decided in this process holds here at once, whatever becomes of the broker."""
        for state in committed:
            if isinstance(state, Epoch):
                self._revocations.learn(state.kind, state.id, state.epoch_ms)

    def latest(self, tenant_id: UUID, client_id: str) -> int:
        """The epoch of a client, or of its tenant, that is known at this moment."""
        return self._revocations.latest([mark("tenant", str(tenant_id)), mark("client", client_id)])

    def above(self, grant: Grant, at: datetime) -> int:
        """The moment below which a token issued now must not lie. An epoch further ahead than any of ours is none.

        A session's is the last word on it: whoever is granted something while it ends is granted nothing.
        """
        names = {kind: name for kind, name in grant.revocable.items() if kind != "session"}
        latest = self._revocations.latest([mark(kind, name) for kind, name in names.items()])
        return latest if latest <= milliseconds(at + LIFTED) else 0
