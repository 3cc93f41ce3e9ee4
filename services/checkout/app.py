"""Composition root of the checkout service: what its two processes are made of."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libs.common.processes.parts import Kept, Process, ServiceParts
from services.checkout import consumers, handlers, repository, tables
from services.checkout.domain.saga import Checkout
from services.checkout.handlers.checkouts import Lifetime
from services.checkout.settings import Settings


@asynccontextmanager
async def context(process: Process) -> AsyncIterator[Lifetime]:
    """What every checkout is begun with."""
    yield Lifetime(process.settings.checkout_ttl_seconds)


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
