"""Whose access tokens are refused although they have not ended: what identity tells of that, as each process knows it.

An epoch says that what was issued before it, to one tenant, subject, session or client, is over. Epochs only rise here,
however late and however often one is heard, and are let go of when no token can live that they would refuse.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from libs.common.clock import now
from libs.common.errors import UnavailableError
from libs.common.telemetry import Counter

KEPT_SECONDS = 1_000
"""Longer than any token lives (`auth.MAX_LIFETIME_SECONDS`), with all that clocks may differ by."""
AHEAD_SECONDS = 60
"""An epoch further ahead than this is none of identity's: it is passed over."""
CLOCKS_MS = 2_000
"""So far a token's moment may be off where it is compared with the beginning of this process."""
PATIENCE_SECONDS = 10
"""So long a process waits for the topic before it takes part: without the broker it serves whoever fetches a new token."""
FIRST_SWEEP = 1_024

REFUSED = Counter("cartwright_revocations_refused_total", "Revocation epochs that were not believed", ["reason"])

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Issued:
    """When a token was issued, in milliseconds, and to whom: each of them may be revoked."""

    at_ms: int
    marks: tuple[str, ...]


def mark(kind: str, id: Any) -> str:  # noqa: A002 - what the event calls it
    """The name of one whose tokens may be revoked."""
    return f"{kind}:{id}".lower()


class Revocations:
    """Every epoch that can still refuse a token."""

    def __init__(self, clock: Callable[[], float] = lambda: now().timestamp()) -> None:
        self._clock = clock
        self._epochs: dict[str, int] = {}
        self._sweep_at = FIRST_SWEEP
        self._began_at = clock()
        self._is_whole = False

    def __len__(self) -> int:
        return len(self._epochs)

    @property
    def is_whole(self) -> bool:
        """Whether every epoch is known that could refuse a token of before this process began."""
        return self._is_whole or self._clock() - self._began_at > KEPT_SECONDS

    @property
    def is_awaited(self) -> bool:
        """Whether it is worth waiting for the rest."""
        return not self._is_whole and self._clock() - self._began_at < PATIENCE_SECONDS

    def read_to_its_end(self) -> None:
        """The topic has told all that it had."""
        self._is_whole = True

    def learn(self, kind: str, id: str, epoch_ms: int) -> None:  # noqa: A002 - as above
        """Take one epoch, unless a later one is known."""
        at_ms = self._clock() * 1_000
        if epoch_ms > at_ms + AHEAD_SECONDS * 1_000:
            REFUSED.labels("ahead").inc()
            log.error("revocations.refused", reason="ahead", kind=kind, id=id[:64], action="find out who writes revocation.v1")
            return
        if epoch_ms < at_ms - KEPT_SECONDS * 1_000:
            return
        name = mark(kind, id)
        self._epochs[name] = max(epoch_ms, self._epochs.get(name, 0))
        if len(self._epochs) >= self._sweep_at:
            self._sweep(at_ms)

    def _sweep(self, at_ms: float) -> None:
        self._epochs = {name: epoch for name, epoch in self._epochs.items() if epoch >= at_ms - KEPT_SECONDS * 1_000}
        self._sweep_at = max(FIRST_SWEEP, 2 * len(self._epochs))

    def latest(self, marks: Sequence[str]) -> int:
        """The highest epoch of any of these; 0 when there is none."""
        return max((self._epochs.get(name, 0) for name in marks), default=0)

    def refuse(self, issued: Issued) -> bool:
        """Whether this token is over. It is asked for each request, so it looks up no more than it must."""
        epochs, at_ms = self._epochs, issued.at_ms
        if epochs:
            for name in issued.marks:
                if epochs.get(name, 0) > at_ms:
                    return True
        return False

    def demand_known(self, issued: Issued) -> None:
        """Raise UnavailableError if this token may have been revoked before this process began, and nobody has told yet.

        What was issued since is as good here as in a process that has heard nothing for as long.
        """
        if issued.at_ms < self._began_at * 1_000 + CLOCKS_MS and not self.is_whole:
            raise UnavailableError("revocations-unavailable", "it is not known yet what was revoked; try again", retry_after=1)
