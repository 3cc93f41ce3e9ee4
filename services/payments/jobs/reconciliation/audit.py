"""One reconciliation of one tenant: both sides compared page by page, and what differs looked at again, repaired, recorded."""

import asyncio
from collections import Counter as Counts
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog

from libs.common.clock import NIL, now
from libs.common.decision import Message
from libs.common.messaging.shell import Failure, Shell
from libs.common.telemetry import Counter
from services.payments.domain.provider.outcome import TransactionKind
from services.payments.domain.reconciliation.comparison import (
    BreakKind,
    Comparison,
    Found,
    Side,
    Subject,
    Totals,
    compare,
    count_in,
)
from services.payments.domain.reconciliation.reconciliation import LEASE, Reconciliation, as_found
from services.payments.gateway.protocol import PaymentGateway
from services.payments.handlers.reconciliation import FinishReconciliation, RecordFindings
from services.payments.jobs.reconciliation.comparing import KINDS, Kind, Told
from services.payments.repository.bookmark import BEGINNING, Bookmark
from services.payments.repository.reconciliation import Window, breaks_not_seen_since

AT_ONCE = 10
"""Objects that are read at the same time."""
BENEATH: dict[str, Kind] = {
    TransactionKind.CHARGE: KINDS[Subject.PAYMENT],
    TransactionKind.REFUND: KINDS[Subject.REFUND],
    TransactionKind.REFUND_FAILURE: KINDS[Subject.REFUND],
    TransactionKind.DISPUTE: KINDS[Subject.DISPUTE],
    TransactionKind.DISPUTE_REVERSAL: KINDS[Subject.DISPUTE],
}
"""What a movement of the balance is of."""
PAGE = 200
ALIVE_EVERY = LEASE / 4

REPAIRED = Counter("cartwright_reconciliation_repaired_total", "Differences that were repaired", ["kind"])

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Audit:
    """One run of one tenant, from its first page to its totals."""

    shell: Shell
    gateway: PaymentGateway
    book: Reconciliation
    counts: "Counts[str]" = field(default_factory=Counts)
    totals: Totals = field(default_factory=dict)
    found: set[UUID] = field(default_factory=set)
    heard_at: datetime = field(default_factory=now)

    def part_of(self, window: Window) -> Window | None:
        """What of this stretch the run is to compare."""
        start, end = span(self.book.window_from, self.book.window_to)
        part = (max(start, window[0]), min(end, window[1]))
        return part if part[0] < part[1] else None

    async def end(self, begun: datetime) -> None:
        """Look again for the breaks that were not met on the way, and say what it came to."""
        await self._look_again(begun)
        command = FinishReconciliation(
            reconciliation_id=self.book.id, tries=self.book.tries, counts=dict(self.counts), totals=self.totals
        )
        await self.shell.execute(self._message(command))

    # --- One kind of object, over one stretch -----------------------------------------------------------------------

    async def compare_page(self, kind: Kind, window: Window, seen: Sequence[Any], met: set[UUID]) -> None:
        """The provider's page beside what we have of it."""
        async with self.shell.database.transaction([self.book.tenant_id]) as connection:
            told = await kind.told(connection, self.book.tenant_id, seen)
            ours = await kind.ours(connection, self.book.tenant_id, [each.side for each in told]) if told else ()
        listed = {each.side.provider_id for each in told}
        # One of ours that names another object of the provider's has not been met by meeting this one.
        met.update(side.our_id for side in ours if side.our_id is not None and side.provider_id in {None, *listed})
        self.counts["not_ours"] += len(seen) - len(told)
        await self._settle(kind, window, self._held_against(ours, [each.side for each in told]).about(listed))
        await self._stay_alive()

    async def find_absent(self, kind: Kind, window: Window, met: set[UUID]) -> None:
        """What we made in the stretch and the provider did not list: read there by its id before it is called missing."""
        await self._stay_alive()
        after = Bookmark(window[0], NIL)
        while True:
            async with self.shell.database.transaction([self.book.tenant_id]) as connection:
                page = await kind.ours_in(connection, self.book.tenant_id, window, after, PAGE)
            unseen = [side for side in page if side.our_id not in met]
            await self._settle(kind, window, self._held_against(unseen, []))
            if len(page) < PAGE:
                return
            after = Bookmark(page[-1].made_at, page[-1].our_id or NIL)

    def _held_against(self, ours: Sequence[Side], theirs: Sequence[Side]) -> Comparison:
        return compare(ours, theirs, now=now(), grace=self.book.grace)

    # --- Differences --------------------------------------------------------------------------------------------------

    async def _settle(self, kind: Kind, window: Window | None, first: Comparison) -> set[UUID]:
        """Look at both sides of each difference again, repair what is provable, and put the rest on record.

        The first look is old by the time it is compared; the second reads ours, then the provider's, so that what moves
        meanwhile is seen to be further there, never here. Answers the keys of all that did not agree of itself.
        """
        self._count(window, first.agreed, first.in_flight)
        if not first.found:
            return set()
        await self._settle_beneath(first.found)
        doubtful = {found.provider_id for found in first.found}
        ours = await self._ours(kind, _sides(first.found))
        told = await self._read(kind, [*(found.either for found in first.found), *ours])
        theirs = [each.side for each in told]
        second = self._held_against(ours, theirs).about(doubtful)
        repaired: list[Found] = []
        if provable := [found for found in second.found if found.repair is not None]:
            await self._repair(kind, provable, told)
            second = self._held_against(await self._ours(kind, _sides(first.found)), theirs).about(doubtful)
            remaining = self._keys((*second.found, *second.in_flight))
            repaired = [found for found in provable if found.key(self.book.tenant_id) not in remaining]
        self._count(window, second.agreed, second.in_flight, second.found)
        await self._record(second.found, repaired)
        return self._keys((*second.found, *second.in_flight, *repaired))

    async def _read(self, kind: Kind, sides: Sequence[Side]) -> list[Told]:
        """What the provider has of these objects now, a few at a time."""
        wanted = list({side.provider_id: side for side in reversed(sides)}.values())
        told: list[Told | None] = []
        for start in range(0, len(wanted), AT_ONCE):
            told += await asyncio.gather(*(kind.read(self.gateway, side) for side in wanted[start : start + AT_ONCE]))
        return [each for each in told if each is not None]

    def _keys(self, differences: Sequence[Found]) -> set[UUID]:
        return {found.key(self.book.tenant_id) for found in differences}

    async def _settle_beneath(self, differences: Sequence[Found]) -> None:
        """A movement that our ledger lacks may be of an object that we have not heard of moving: look at that first."""
        for found in differences:
            kind = BENEATH.get(found.either.state) if found.either.subject is Subject.TRANSACTION else None
            if kind is None or found.kind is BreakKind.FEE:
                continue
            moved = replace(found.either, our_id=found.payment_id, provider_id=found.either.source_id)
            known = await self._ours(kind, [moved])
            unheard = tuple(Found(kind=BreakKind.MISSING_THERE, ours=side, theirs=None) for side in known)
            await self._settle(kind, None, Comparison(found=unheard))

    async def _ours(self, kind: Kind, sides: Sequence[Side]) -> Sequence[Side]:
        async with self.shell.database.transaction([self.book.tenant_id]) as connection:
            return await kind.ours(connection, self.book.tenant_id, sides)

    async def _repair(self, kind: Kind, provable: Sequence[Found], told: Sequence[Told]) -> None:
        """Tell our machines what the provider shows; they decide, as they would upon a webhook."""
        by_id = {each.side.provider_id: each for each in told}
        commands = [kind.repair(found, by_id[found.provider_id]) for found in provable]
        answers = await self.shell.execute_many([self._message(command) for command in commands])
        for found, answer in zip(provable, answers, strict=True):
            if isinstance(answer, Failure):
                log.warning("break.not_repaired", provider_id=found.provider_id, error=str(answer.error))

    async def _stay_alive(self) -> None:
        """Say so now and then, also where nothing is found."""
        if now() - self.heard_at > ALIVE_EVERY:
            await self._record()

    async def _record(self, found: Sequence[Found] = (), repaired: Sequence[Found] = (), gone: Sequence[UUID] = ()) -> None:
        """Put findings on record; with none, only that the run is alive."""
        self.heard_at = now()
        for each in repaired:
            REPAIRED.labels(each.kind).inc()
            self.counts[f"repaired_{each.kind}"] += 1
        # Where two stretches meet, the same may be come upon from either side.
        self.counts.update(str(each.kind) for each in found if each.key(self.book.tenant_id) not in self.found)
        self.found |= self._keys(found)
        command = RecordFindings(
            reconciliation_id=self.book.id,
            tries=self.book.tries,
            found=tuple(found),
            repaired=tuple(repaired),
            gone=tuple(gone),
        )
        await self.shell.execute(self._message(command))

    # --- Breaks of earlier runs ---------------------------------------------------------------------------------------

    async def _look_again(self, begun: datetime) -> None:
        """Breaks outside the window, or that the window no longer shows: still there, or gone."""
        after = BEGINNING
        while True:
            async with self.shell.database.transaction([self.book.tenant_id]) as connection:
                page = await breaks_not_seen_since(connection, self.book.tenant_id, begun, after=after, limit=PAGE)
            for subject, kind in KINDS.items():
                known = [each for each in page if each.subject is subject]
                if not known:
                    continue
                lasting = await self._settle(kind, None, Comparison(found=tuple(map(as_found, known))))
                await self._record(gone=[each.id for each in known if each.id not in lasting])
            if len(page) < PAGE:
                return
            after = Bookmark(page[-1].first_seen_at, page[-1].id)

    # --- Sums ---------------------------------------------------------------------------------------------------------

    def _count(
        self,
        window: Window | None,
        agreed: Sequence[tuple[Side, Side]],
        in_flight: Sequence[Found],
        found: Sequence[Found] = (),
    ) -> None:
        """Add what was made in this stretch to the sums, once: what both sides have counts where it was made here."""
        if window is None:
            return
        young = [each for each in in_flight if _is_of(window, each.ours or each.either)]
        self.counts["in_flight"] += len(young)
        for ours, theirs in [*agreed, *((each.ours, each.theirs) for each in found)]:
            sides = {"ours": ours, "theirs": theirs}
            if not _is_of(window, next(side for side in sides.values() if side is not None)):
                continue
            self.counts["compared"] += 1
            for which, side in sides.items():
                if side is not None:
                    count_in(self.totals, which, side)

    def _message(self, command: Any) -> Message[Any]:
        return self.shell.command(command, self.book.tenant_id)


def _is_of(window: Window, side: Side) -> bool:
    return window[0] <= side.made_at < window[1]


def _sides(differences: Sequence[Found]) -> list[Side]:
    return [side for found in differences for side in (found.ours, found.theirs) if side is not None]


def span(start: datetime, end: datetime) -> Window:
    """A window at whole seconds: the provider knows no others."""
    return start.replace(microsecond=0), end.replace(microsecond=0) + timedelta(seconds=1)
