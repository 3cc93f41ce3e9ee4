"""A tenant on its way from one cell to another: copied while it trades, closed for seconds, open again elsewhere.

Each step looks at where things stand, so whoever is interrupted begins again and goes on. Until the door is closed nothing has
changed for anybody; from then on there is only the way forward.
"""

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import asyncpg

from deploy.cells import doors, rows
from deploy.cells.errors import MoveError
from deploy.cells.rows import Copied, Kept
from deploy.cells.together import together
from libs.common.database import Connection
from libs.common.tenancy import SETTING

LOOK_SECONDS: Final = 0.1
PATIENCE_SECONDS: Final = 120
"""So long workers of a cell may take to read or to publish what is under way."""
SOON_SECONDS: Final = 2.0
"""A look that took less is repeated behind a closed door without anybody minding, and is the last before it."""
NO_QUICKER: Final = 0.7
"""One that took more than this share of the look before is the last too: there are so many rows to compare."""
MOST_LOOKS: Final = 10

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """From where to where."""

    tenant_id: UUID
    source: str
    target: str


@dataclass(slots=True)
class Moved:
    """What a move came to."""

    rows: int = 0
    closed_seconds: float = 0.0
    """For how long nothing was decided of the tenant."""
    digest: str = ""
    """Of all that was moved, as it was in both cells when the door opened."""
    deleted: int = 0


@dataclass(slots=True)
class _Leg:
    """One service's part of it."""

    service: str
    source: Connection
    target: Connection
    tables: Sequence[Kept] = ()
    copied: Copied = field(default_factory=Copied)
    """What its last look came to."""
    kept_from: doors.Positions = field(default_factory=dict)


Owners = Callable[[str, str], str]
"""The owner's address of a service's database in a cell."""


async def moved(
    way: Way, services: Sequence[str], owners: Owners, *, version: int, switch: Callable[[], Awaitable[None]], say: Say
) -> Moved:
    """Move it. `version` is identity's of the tenant, and `switch` has identity say where it is from now on."""
    result = Moved()
    async with _legs(way, services, owners) as legs:
        nowhere = [leg for leg in legs if await doors.is_nowhere(leg.source, leg.target, way.tenant_id, (way.source, way.target))]
        if nowhere:
            await _reopened(nowhere, way)
            say(f"no cell has served it since its databases were restored to before a move: it is open in {way.target} again")
        staying = [leg for leg in legs if leg not in nowhere and not await _has_left(leg, way)]
        if staying:
            await _prepared(way, staying, version, result, say)
        if staying != legs:
            say("its door was closed before: going on from there")
        closed_at = time.monotonic()
        await together(_closed(leg, way) for leg in staying)
        say("its door is closed")
        closed = [leg for leg in legs if not await _has_arrived(leg, way)]  # what is open has gone on since
        await together(_until_quiet(leg, way) for leg in closed)
        result.rows += sum(await together(_until_equal(leg, way) for leg in closed))
        if closed:
            result.digest = _digest(closed)
            say(f"both cells have the same: {result.digest[:16]}")
        await together(_opened(leg, way) for leg in closed)
        await switch()
        result.closed_seconds = time.monotonic() - closed_at
        say(f"it is open in {way.target}, after {result.closed_seconds:.1f} s")
    return result


async def emptied(way: Way, services: Sequence[str], owners: Owners) -> int:
    """Delete what it left behind, if it left anything; answers how many rows."""
    async with _legs(way, services, owners) as legs:
        for leg in legs:
            if not await _has_arrived(leg, way):
                raise MoveError(f"{leg.service} does not have it in {way.target}: what is in {way.source} is all there is of it")
        counts = await together(doors.empty(leg.source, way.tenant_id, [table.name for table in leg.tables]) for leg in legs)
    return sum(counts)


async def given_up(way: Way, services: Sequence[str], owners: Owners) -> None:
    """Keep nothing of it for later in the other cell, unless it has left already."""
    async with _legs(way, services, owners) as legs:
        for leg in legs:
            if await _has_left(leg, way):
                raise MoveError(f"it has left {way.source} in {leg.service}: there is only the way forward, by the same move")
        await together(doors.release(leg.target, way.tenant_id) for leg in legs)


async def _reopened(legs: Sequence[_Leg], way: Way) -> None:
    """Open its door where its rows are, which is for whoever asks to know: each cell believes it in another."""
    if not any(await together(rows.has_any(leg.target, way.tenant_id, leg.tables) for leg in legs)):
        raise MoveError(f"no cell serves it, and none of its rows are in {way.target}: name the cell that they are in")
    await together(doors.reopen(leg.target, way.tenant_id, way.target) for leg in legs)


async def _prepared(way: Way, legs: Sequence[_Leg], version: int, result: Moved, say: Say) -> None:
    """Everything that can be done while it trades."""
    await together(_known_in_both(leg, way, version) for leg in legs)
    try:
        await together(_keep(leg, way) for leg in legs)
        before = math.inf
        for look in range(1, MOST_LOOKS + 1):
            began = time.monotonic()
            count = sum(await together(_look(leg, way) for leg in legs))
            seconds = time.monotonic() - began
            result.rows += count
            say(f"look {look}: {count:,} rows copied in {seconds:.1f} s")
            if seconds < SOON_SECONDS or seconds > NO_QUICKER * before:
                break
            before = seconds
        await together(_as_far(leg) for leg in legs)
    except BaseException:
        await together(doors.release(leg.target, way.tenant_id) for leg in legs)
        raise


async def _known_in_both(leg: _Leg, way: Way, version: int) -> None:
    """Raise MoveError unless it is here, not there, and nothing that was set aside for good is still to be published."""

    async def is_known() -> bool:
        here, there = [await doors.cell_of(each, way.tenant_id) for each in (leg.source, leg.target)]
        if here is not None and here[0] != way.source:
            raise MoveError(f"{leg.service} has it in {here[0]}, and identity in {way.source}: nobody else may move it meanwhile")
        if there is not None and there[0] == way.target:
            raise MoveError(f"{leg.service} has it in {way.target} already")
        return here is not None and here[1] >= version and there is not None

    await _until(is_known, f"{leg.service} in {way.source} and {way.target} to hear of it: do workers run in both cells?")
    if await leg.source.fetchval(
        "SELECT count(*) FROM outbox_parked WHERE tenant_id = $1 AND state NOT IN ('replayed', 'discarded')", way.tenant_id
    ):
        raise MoveError(f"events of it are set aside in {leg.service}'s outbox: replay or discard them first (parked list)")


async def _keep(leg: _Leg, way: Way) -> None:
    consumers = sorted({place.consumer for place in await doors.positions(leg.source)})
    leg.kept_from = await doors.hold(leg.target, way.tenant_id, consumers)


async def _as_far(leg: _Leg) -> None:
    """Wait until the old cell has read all that the new one passed over before it kept anything."""

    async def is_so() -> bool:
        here = await doors.positions(leg.source)
        return all(here.get(place, -1) >= at for place, at in leg.kept_from.items())

    await _until(is_so, f"{leg.service} to read as far as the other cell has")


async def _closed(leg: _Leg, way: Way) -> None:
    async def is_closed() -> bool:
        try:
            await doors.depart(leg.source, way.tenant_id, way.target, way.source)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            return False
        return True

    await _until(is_closed, f"the positions of {leg.service}'s workers to be free for a moment")


async def _until_quiet(leg: _Leg, way: Way) -> None:
    """Wait for whoever may not have seen the door closed, and for the relay to publish what it said until then."""
    before = await doors.deciding(leg.source)

    async def is_done() -> bool:
        return not before & await doors.deciding(leg.source)

    async def is_said() -> bool:
        return not await leg.source.fetchval("SELECT erasure_outbox_waits($1)", way.tenant_id)

    await _until(is_done, f"transactions of {leg.service} to end")
    await _until(is_said, f"{leg.service}'s relay to publish what the tenant said")


async def _look(leg: _Leg, way: Way) -> int:
    """Copy what is not there yet; answers how many rows."""
    leg.copied = await rows.made_equal(leg.source, leg.target, way.tenant_id, leg.tables, leg.copied.messages)
    return leg.copied.rows


async def _until_equal(leg: _Leg, way: Way) -> int:
    """Copy until a look finds nothing more to copy; answers how many rows that were."""
    count = 0
    for _ in range(MOST_LOOKS):
        count += await _look(leg, way)
        if not leg.copied.tables:
            return count
    changing = ", ".join(leg.copied.tables)
    raise MoveError(f"{leg.service}'s rows go on changing behind a closed door ({changing}): tell us of it")


async def _opened(leg: _Leg, way: Way) -> None:
    async def is_open() -> bool:
        return not await doors.arrive(leg.source, leg.target, way.tenant_id)

    await _until(is_open, f"{leg.service}'s workers in {way.target} to read as far as those in {way.source} had")


async def _has_arrived(leg: _Leg, way: Way) -> bool:
    there = await doors.cell_of(leg.target, way.tenant_id)
    return there is not None and there[0] == way.target


async def _has_left(leg: _Leg, way: Way) -> bool:
    here = await doors.cell_of(leg.source, way.tenant_id)
    return here is not None and here[0] == way.target


async def _until(is_so: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await is_so():
        if time.monotonic() > deadline:
            raise MoveError(f"waited {PATIENCE_SECONDS} s for {what}")
        await asyncio.sleep(LOOK_SECONDS)


def _digest(legs: Collection[_Leg]) -> str:
    return hashlib.sha256("".join(f"{leg.service} {leg.copied.digest}\n" for leg in legs).encode()).hexdigest()


@asynccontextmanager
async def _legs(way: Way, services: Sequence[str], owners: Owners) -> AsyncIterator[list[_Leg]]:
    """Connections as the owners, which see this tenant's rows and no others."""
    found: list[_Leg] = []
    try:
        for service in services:
            source, target = [await _connected(owners(service, cell), way.tenant_id) for cell in (way.source, way.target)]
            found.append(_Leg(service, source, target))
        for leg in found:
            leg.tables = await rows.tables(leg.source, leg.target, way.tenant_id)
        yield found
    finally:
        for leg in found:
            await asyncio.gather(leg.source.close(timeout=5), leg.target.close(timeout=5), return_exceptions=True)


async def _connected(url: str, tenant_id: UUID) -> Connection:
    settings: Mapping[str, str] = {SETTING: str(tenant_id), "TimeZone": "UTC", "application_name": "tenants-move"}
    try:
        return await asyncpg.connect(url, timeout=10, server_settings=dict(settings))
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise MoveError(f"a database cannot be reached as its owner: {error}") from error
