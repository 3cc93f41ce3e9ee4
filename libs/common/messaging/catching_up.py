"""One transaction for a source that is resumed: what was held back is decided, in its order, and the stretch gets shorter.

While the stretch is there the consumer adds to its end whatever comes of that source; both hold the lock of the position.
So when nothing is left of it the consumer decides the next one, and no message is decided twice or before an earlier one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from libs.common.clock import PLATFORM
from libs.common.database import Connection
from libs.common.decision import IdentityMap
from libs.common.messaging.batch import Applied, Batch, Fence, FencedError, UnstorableError, given_up, tenants_of
from libs.common.messaging.ordering import Found
from libs.common.messaging.parked import GAP, heads, park
from libs.common.messaging.repairs import LOCK_POSITION
from libs.common.messaging.shell import Shell
from libs.common.messaging.sources import OverBudgetError, SortedOut, Stretch
from libs.common.telemetry.messages import BatchSpans


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """What one transaction did."""

    applied: Applied
    rest: Stretch | None
    """What of the stretch is left."""


class CatchUp:
    """Decides what was held back, for one consumer."""

    def __init__(self, shell: Shell, batch: Batch, group: str) -> None:
        self._shell = shell
        self._batch = batch
        self._sources = batch.sources
        self._group = group

    async def apply(self, stretch: Stretch, run: Sequence[Found], upto: int) -> CaughtUp:
        """Decide these, and shorten the stretch up to this offset.

        If too much of it is refused the source is paused again there. Raises FencedError when the stretch is another by now.
        """
        is_paused = False
        while True:
            try:
                return await self._apply(stretch, run, upto, is_paused=is_paused)
            except OverBudgetError as over:
                upto, is_paused = min(over.cuts.values()), True
                run = [(record, found) for record, found in run if record.offset < upto]

    async def _apply(self, stretch: Stretch, run: Sequence[Found], upto: int, *, is_paused: bool) -> CaughtUp:
        partition, source = stretch.partition, stretch.source
        tenant_ids, doubtful = tenants_of({partition: run})
        async with (
            BatchSpans(self._group) as spans,
            self._shell.database.transaction(tenant_ids | {source.tenant_id}) as connection,
        ):
            there = await self._locked(connection, stretch)
            known = await self._sources.known(connection, partition, [record.offset for record, _ in run])
            rest = {partition: [(record, found) for record, found in run if record.offset not in known]}
            fence = Fence({partition: dict(there.watermarks)}, has_parked=True, has_paused=False)
            unknown = await self._shell.unknown(connection, doubtful)
            decided = await self._batch.decided(connection, SortedOut(rest, unknown=unknown), fence, spans)
            await self._sources.demand_room(connection, decided.refusals)
            writes = [park(self._group, decided.refusals)] if decided.refusals else []
            writes += [self._sources.pause([source])] if is_paused else []
            shorter = self._sources.shorten(there, upto, fence.marks[partition], len(run))
            await self._shell.store(connection, decided.aggregates, *writes, shorter, ends=True)
        done = Applied(decided.aggregates, {}, decided.applied, decided.refusals, paused=[source] if is_paused else [])
        return CaughtUp(done, _rest(there, upto))

    async def set_aside(self, stretch: Stretch, found: Found, upto: int, error: Exception) -> CaughtUp:
        """Park the one record that cannot be decided, because of this error."""
        record, key = found[0], (found[0].topic, found[0].key or b"")
        tenant_ids = tenants_of({stretch.partition: [found]})[0] | {stretch.source.tenant_id, PLATFORM}
        async with self._shell.database.transaction(tenant_ids) as connection:
            there = await self._locked(connection, stretch)
            reason = (await heads(connection, self._group, {key})).get(key)
            refusal = given_up(record, found[1], UnstorableError(error), is_behind=reason not in {None, GAP})
            is_beyond = await self._sources.is_spent(connection, refusal)
            write = self._sources.pause([stretch.source]) if is_beyond else park(self._group, [refusal])
            upto = record.offset if is_beyond else upto
            shorter = self._sources.shorten(there, upto, there.watermarks, int(not is_beyond))
            await self._shell.store(connection, IdentityMap(), write, shorter, ends=True)
        refusals, paused = ([], [stretch.source]) if is_beyond else ([refusal], [])
        return CaughtUp(Applied(IdentityMap(), {}, [], refusals, paused=paused), _rest(there, upto))

    async def _locked(self, connection: Connection, stretch: Stretch) -> Stretch:
        # The consumer takes this lock too: it adds nothing to the stretch, nor finds it ended, while this is decided.
        await connection.fetchval(LOCK_POSITION, self._group, *stretch.partition)
        there = await self._sources.lock(connection, stretch)
        if there is None:
            raise FencedError(f"what was held back of {stretch.source.name} does not begin at {stretch.first} any more")
        return there


def _rest(stretch: Stretch, upto: int) -> Stretch | None:
    return replace(stretch, first=upto) if upto <= stretch.last else None
