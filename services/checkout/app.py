"""Composition root of the checkout service: what its two processes are made of."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from libs.common.processes.parts import Job, Kept, Process, ServiceParts
from services.checkout import consumers, handlers, repository
from services.checkout.domain.saga import Checkout, Terms
from services.checkout.settings import Settings

if TYPE_CHECKING:
    from libs.common.http.routes import Routes


def routes() -> "Routes":
    """HTTP in; a worker never loads it."""
    from services.checkout.api import ROUTES

    return ROUTES


def jobs() -> Sequence[Job]:
    """Time in; an API process never loads it."""
    from services.checkout.jobs import JOBS

    return JOBS


@asynccontextmanager
async def context(process: Process) -> AsyncIterator[Terms]:
    """What every checkout is begun with."""
    yield Terms(ttl_seconds=process.settings.checkout_ttl_seconds)


PARTS = ServiceParts(
    name="checkout",
    settings=Settings,
    rows=repository.ROWS,
    handlers=handlers.HANDLERS,
    topics=consumers.TOPICS,
    routes=routes,
    jobs=jobs,
    announce=frozenset({Checkout}),  # what `Prefer: wait` waits for
    apart=[Kept(repository.timeline.PROJECTION, handlers.timeline.TIMELINE)],
    context=context,
)
