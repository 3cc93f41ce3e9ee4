"""Composition root of the checkout service: its two processes."""

from services.checkout import consumers, handlers, repository
from services.checkout.domain.saga import Checkout
from services.checkout.settings import Settings

ANNOUNCE = frozenset({Checkout})
"""What `Prefer: wait` waits for."""


def api() -> None:
    """Serve HTTP."""
    from libs.common.http.api import run_api
    from libs.common.http.routes import Service
    from services.checkout.api import ROUTES

    settings = Settings.read()

    async def prepare(service: Service) -> None:
        service.extras["checkout_ttl_seconds"] = settings.checkout_ttl_seconds

    run_api(
        "checkout", settings, routes=ROUTES, rows=repository.ROWS, handlers=handlers.HANDLERS, announce=ANNOUNCE, prepare=prepare
    )


def worker() -> None:
    """Consume, keep time, and publish the outbox."""
    from libs.common.messaging.projector import Kept
    from libs.common.messaging.worker import run_worker
    from services.checkout.jobs import JOBS

    run_worker(
        "checkout",
        Settings.read(),
        rows=repository.ROWS,
        handlers=handlers.HANDLERS,
        topics=consumers.TOPICS,
        announce=ANNOUNCE,
        jobs=JOBS,
        apart=[Kept(projection, handlers.APART[projection.name]) for projection in (repository.timeline.PROJECTION,)],
    )
