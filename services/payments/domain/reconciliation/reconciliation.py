"""Reconciliations: which stretch of time is compared by whom, and the breaks that are found, with their age. Pure.

How the two sides are compared stands in `comparison.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from libs.common.decision import Aggregate
from libs.common.errors import ConflictError
from services.payments.domain.reconciliation.comparison import BreakKind, Found, Repair, Side, Standing, Subject, Totals

LEASE = timedelta(minutes=5)
"""How long a run that says nothing belongs to whoever took it up."""
RETRY = timedelta(minutes=1)
"""When a run is tried again that the provider or the database interrupted."""
MAX_TRIES = 5
OVERLAP = timedelta(hours=1)
"""A run looks again at the end of the last one: what was in flight then must not be forgotten."""
GRACE = timedelta(minutes=15)
"""What began to change less than this ago is still on its way, on one side or the other."""
DEEP = timedelta(days=8)
"""How far a deep run looks back: longer than an authorization can stand."""
DEEP_EVERY = timedelta(days=1)


# --- Runs ---------------------------------------------------------------------------------------------------------


class RunState(StrEnum):
    """Where a reconciliation stands."""

    REQUESTED = "requested"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    RunState.REQUESTED: frozenset({RunState.RUNNING}),
    # Back to requested: whoever had it lost the provider or the database, and somebody tries again later.
    RunState.RUNNING: frozenset({RunState.REQUESTED, RunState.FINISHED, RunState.FAILED}),
    RunState.FINISHED: frozenset(),
    RunState.FAILED: frozenset(),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconciliation(Aggregate):
    """One comparison of a tenant's books with the provider's, over the objects made in a window of time."""

    OWNER: ClassVar[str | None] = None
    id: UUID
    window_from: datetime
    window_to: datetime
    grace_seconds: int = int(GRACE.total_seconds())
    requested_by: str
    state: RunState = RunState.REQUESTED
    tries: int = 0
    """How often somebody took it up; what an earlier one still has to say does not count."""
    due_at: datetime | None
    """Until then it is whoever's took it up last; afterwards anybody's. None: it is over."""
    started_at: datetime
    finished_at: datetime | None = None
    counts: dict[str, int] = field(default_factory=dict)
    totals: Totals = field(default_factory=dict)
    error: str | None = None

    @property
    def grace(self) -> timedelta:
        """How long a difference may be put down to something on its way."""
        return timedelta(seconds=self.grace_seconds)


def window_after(last_to: datetime | None, last_deep: datetime | None, now: datetime) -> tuple[datetime, datetime]:
    """What the next scheduled run compares: since the last one, and once a day as far back as a hold can stand."""
    since_last = now if last_to is None else last_to - OVERLAP
    is_deep = last_deep is None or now - last_deep >= DEEP_EVERY
    return min(since_last, now - DEEP if is_deep else now - OVERLAP), now


def move(run: Reconciliation, to: RunState) -> Reconciliation:
    """Change state, if the table says so. Raises ConflictError otherwise."""
    if to not in TRANSITIONS[run.state]:
        raise ConflictError("reconciliation-state", f"a reconciliation that is {run.state} cannot become {to}")
    return replace(run, state=to)


def take_up(run: Reconciliation, now: datetime) -> Reconciliation | None:
    """Make it one's own for a while. None: it is over, or somebody has it."""
    if run.due_at is None or run.due_at > now:
        return None
    running = run if run.state is RunState.RUNNING else move(run, RunState.RUNNING)
    return replace(running, tries=run.tries + 1, due_at=now + LEASE, error=None)


def belongs_to(run: Reconciliation, tries: int) -> bool:
    """Whether whoever took it up as this try still has it."""
    return run.state is RunState.RUNNING and run.tries == tries


def hold(run: Reconciliation, now: datetime) -> Reconciliation:
    """Whoever has it is alive."""
    return replace(run, due_at=now + LEASE)


def finish(run: Reconciliation, counts: Mapping[str, int], totals: Totals, now: datetime) -> Reconciliation:
    """It is done: what was compared, and what both sides come to."""
    done = move(run, RunState.FINISHED)
    return replace(done, counts=dict(counts), totals=totals, due_at=None, finished_at=now)


def interrupt(run: Reconciliation, why: str, now: datetime) -> Reconciliation:
    """It could not be brought to an end: once more later, or never when that was often enough."""
    if run.tries >= MAX_TRIES:
        return replace(move(run, RunState.FAILED), error=why, due_at=None, finished_at=now)
    return replace(move(run, RunState.REQUESTED), error=why, due_at=now + RETRY)


# --- Breaks ---------------------------------------------------------------------------------------------------------


class BreakState(StrEnum):
    """What became of a break."""

    OPEN = "open"
    REPAIRED = "repaired"
    GONE = "gone"
    """Looked for again, and both sides agreed: they came together by themselves, or a person saw to it."""
    SETTLED = "settled"
    """Closed by a person, who says why: it cannot be mended, and nothing more will come of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Break(Aggregate):
    """A difference between the provider and us, for as long as it lasts and as a record afterwards."""

    OWNER: ClassVar[str | None] = None
    id: UUID
    kind: BreakKind
    subject: Subject
    our_id: UUID | None
    provider_id: str | None
    payment_id: UUID | None
    currency: str
    ours: dict[str, Any] | None
    theirs: dict[str, Any] | None
    repair: Repair | None
    state: BreakState
    first_seen_at: datetime
    last_seen_at: datetime
    seen_count: int
    closed_at: datetime | None = None
    closed_by: str | None = None
    """Of one that a person closed: who."""
    closed_reason: str | None = None
    reconciliation_id: UUID
    """The last run that found it."""


def found_again(known: Break | None, found: Found, run: Reconciliation, now: datetime, *, repaired: bool) -> Break:
    """Put a difference on record. One that was still open keeps its age; one that had been closed begins anew.

    One that a person closed stays closed for as long as neither side has moved.
    """
    again = _on_record(known, found, run, now, repaired=repaired)
    if known is None or known.state is not BreakState.SETTLED or repaired or not _says_the_same(known, again):
        return again
    return replace(known, last_seen_at=now, seen_count=known.seen_count + 1, reconciliation_id=run.id)


def _says_the_same(known: Break, again: Break) -> bool:
    """Whether each side is as it was, whenever it last began to change."""
    ours, theirs = _but_since(known.ours), _but_since(known.theirs)
    return (ours, theirs) == (_but_since(again.ours), _but_since(again.theirs))


def _but_since(side: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if side is None else {name: value for name, value in side.items() if name != "since"}


def _on_record(known: Break | None, found: Found, run: Reconciliation, now: datetime, *, repaired: bool) -> Break:
    lasting = known if known is not None and known.state is BreakState.OPEN else None
    return Break(
        tenant_id=run.tenant_id,
        id=found.key(run.tenant_id),
        version=known.version if known else 0,
        sequence=known.sequence if known else 0,
        kind=found.kind,
        subject=found.either.subject,
        our_id=found.our_id,
        provider_id=found.provider_id,
        payment_id=found.payment_id,
        currency=found.either.currency,
        ours=found.ours.as_json() if found.ours else None,
        theirs=found.theirs.as_json() if found.theirs else None,
        repair=found.repair,
        state=BreakState.REPAIRED if repaired else BreakState.OPEN,
        first_seen_at=lasting.first_seen_at if lasting else now,
        last_seen_at=now,
        seen_count=lasting.seen_count + (lasting.reconciliation_id != run.id) if lasting else 1,
        closed_at=now if repaired else None,
        reconciliation_id=run.id,
    )


def gone(known: Break, now: datetime) -> Break | None:
    """It was looked for and is no more. None: it was over before."""
    if known.state is not BreakState.OPEN:
        return None
    return replace(known, state=BreakState.GONE, closed_at=now)


def settle(known: Break, by: str, reason: str, now: datetime) -> Break:
    """Close what nobody can mend, by a person's word. Raises ConflictError for one that is closed."""
    if known.state is not BreakState.OPEN:
        raise ConflictError("break-closed", f"this break is {known.state}: there is nothing to close", state=str(known.state))
    return replace(known, state=BreakState.SETTLED, closed_at=now, closed_by=by, closed_reason=reason)


def as_found(known: Break) -> Found:
    """The difference as it was when last seen, to be looked for again."""
    ours, theirs = _side(known, known.ours), _side(known, known.theirs)
    return Found(kind=known.kind, ours=ours, theirs=theirs, repair=known.repair)


def _side(known: Break, kept: Mapping[str, Any] | None) -> Side | None:
    if kept is None:
        return None
    return Side(
        subject=known.subject,
        our_id=known.our_id,
        provider_id=known.provider_id,
        payment_id=known.payment_id,
        standing=Standing(kept["standing"]),
        state=kept["state"],
        amount_minor=kept["amount_minor"],
        held_minor=kept["held_minor"],
        fee_minor=kept.get("fee_minor"),
        currency=known.currency,
        made_at=datetime.fromisoformat(kept["made_at"]),
        since=datetime.fromisoformat(kept["since"]),
        source_id=kept.get("source_id"),
        fee_currency=kept.get("fee_currency"),
        exchange_rate=kept.get("exchange_rate"),
        exchanged_minor=kept.get("exchanged_minor"),
    )
