"""Composition root of the checkout service: what its two processes are made of."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libs.common.http.gatherings import Gatherings
from libs.common.processes.parts import Kept, Process, ServiceParts
from services.checkout import consumers, handlers, repository, tables
from services.checkout.domain.returning import origins_of
from services.checkout.domain.saga import Checkout
from services.checkout.handlers.checkouts import Terms
from services.checkout.repository.drops import Rooms
from services.checkout.settings import Settings


@asynccontextmanager
async def context(process: Process) -> AsyncIterator[tuple[Terms, Rooms, Gatherings]]:
    """What every checkout is begun with, what is known of drops, and who arrives at them."""
    settings: Settings = process.settings
    origins = origins_of((settings.issuer, *settings.shop_urls.split()))
    yield Terms(settings.checkout_ttl_seconds, origins), Rooms(), Gatherings()


PARTS = ServiceParts(
    name="checkout",
    settings=Settings,
    rows=repository.ROWS,
    handlers=handlers.HANDLERS,
    topics=consumers.TOPICS,
    holdings=tables.HOLDINGS,
    has_jobs=True,
    announce=frozenset({Checkout}),  # what `Prefer: wait` waits for
    apart=[Kept(repository.timeline.PROJECTION, handlers.timeline.TIMELINE)],
    context=context,
)
