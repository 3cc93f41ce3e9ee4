"""Drops, the places in their queues, and what a process knows of drops for all who wait in it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from libs.common.clock import now
from libs.common.database import Connection, Database, Rows
from libs.common.database.statements import select
from services.checkout import tables
from services.checkout.domain import drop
from services.checkout.domain.drop import Drop, Place, Standing

DROPS = Rows(tables.DROP, Drop)
PLACES = Rows(tables.DROP_PLACE, Place)

LOOK_SECONDS = 1.0
"""So old may be what those who wait are told."""
MOST_KNOWN = 1_000
MOST_WAITING = 50_000

WAITING = "SELECT tenant_id, id FROM drops_waiting()"
UNUSED = """SELECT count(p.number) AS count
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[]) WITH ORDINALITY AS d(tenant_id, id, lapsed, served, place)
LEFT JOIN drop_place p ON p.tenant_id = d.tenant_id AND p.drop_id = d.id AND p.number > d.lapsed AND p.number <= d.served
    AND p.checkout_id IS NULL
GROUP BY d.place ORDER BY d.place"""
FORGET = "SELECT places_forget($1, $2)"


async def waiting(database: Database, at: datetime) -> Sequence[tuple[Drop, int]]:
    """The drops that somebody waits at, each with how many are admitted there, may still come, and have not."""
    async with database.acquire() as connection:
        found = [(row["tenant_id"], row["id"]) for row in await connection.fetch(WAITING)]
    if not found:
        return []
    async with database.transaction(tenant_id for tenant_id, _ in found) as connection:
        drops = await DROPS.load(connection, found, lock=False)
        places = [(each.tenant_id, each.id, each.lapsed_number(at), each.served_number) for each in drops]
        counts = await connection.fetch(UNUSED, *map(list, zip(*places, strict=True))) if places else []
    return [(each, row["count"]) for each, row in zip(drops, counts, strict=True)]


async def forget_places(connection: Connection, older_than: timedelta, how_many: int) -> int:
    """Forget places of all tenants that were taken longer ago than that; answers how many."""
    return int(await connection.fetchval(FORGET, older_than, how_many))


async def standing(connection: Connection, tenant_id: UUID, drop_id: UUID, place_id: UUID) -> tuple[Drop | None, Place | None]:
    """A drop and one place in its queue."""
    wanted = [DROPS.wanted([(tenant_id, drop_id)], lock=False), PLACES.wanted([(tenant_id, place_id)], lock=False)]
    drops, places = await select(connection, wanted)
    return next(iter(DROPS.made(drops)), None), next(iter(PLACES.made(places)), None)


@dataclass(slots=True)
class Rooms:
    """Drops as they were a moment ago: read once a second each, however many of this process's callers wait there."""

    most_streams: int = 2_000
    """So many may be told of their place as it changes. Others ask."""
    streams: int = 0
    _known: dict[tuple[UUID, UUID], tuple[float, "asyncio.Future[Drop | None]"]] = field(default_factory=dict)
    _waiting: dict[tuple[UUID, UUID], Place] = field(default_factory=dict)

    async def standing(
        self, database: Database, tenant_id: UUID, drop_id: UUID, place_id: UUID, clock: Callable[[], float]
    ) -> tuple[Drop | None, Place | None]:
        """A drop and one place in its queue. Of a crowd that asks again and again the database is not asked for each.

        While somebody waits nothing can change their place but the drop: they are read again once it is their turn.
        """
        key = tenant_id, place_id
        if (place := self._waiting.get(key)) is not None:
            found = await self.look(database, tenant_id, drop_id, clock)
            if _waits(found, place):
                return found, place
        async with database.transaction([tenant_id]) as connection:
            found, place = await standing(connection, tenant_id, drop_id, place_id)
        self._waiting.pop(key, None)
        if place is not None and _waits(found, place):
            if len(self._waiting) >= MOST_WAITING:
                self._waiting.clear()
            self._waiting[key] = place
        return found, place

    async def look(self, database: Database, tenant_id: UUID, drop_id: UUID, clock: Callable[[], float]) -> Drop | None:
        """The drop. Whoever comes while somebody reads it is told what they find."""
        looked_at, found = self._known.get((tenant_id, drop_id), (0.0, None))
        if found is None or clock() - looked_at >= LOOK_SECONDS or (found.done() and found.exception() is not None):
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            found = asyncio.ensure_future(_read(database, tenant_id, drop_id))
            self._known[tenant_id, drop_id] = clock(), found
        return await asyncio.shield(found)


def _waits(found: Drop | None, place: Place) -> bool:
    return found is not None and drop.standing(found, place, now()) is Standing.WAITING


async def _read(database: Database, tenant_id: UUID, drop_id: UUID) -> Drop | None:
    async with database.transaction([tenant_id]) as connection:
        found = await DROPS.load(connection, [(tenant_id, drop_id)], lock=False)
    return found[0] if found else None
