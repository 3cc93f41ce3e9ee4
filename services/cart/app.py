"""Composition root of the cart service: its two processes."""

from services.cart import consumers, handlers, repository
from services.cart.settings import Settings


def api() -> None:
    """Serve HTTP."""
    from libs.common.http.api import run_api
    from services.cart.api import ROUTES

    run_api("cart", Settings.read(), routes=ROUTES, rows=repository.ROWS, handlers=handlers.HANDLERS)


def worker() -> None:
    """Consume, and publish the outbox."""
    from libs.common.messaging.worker import run_worker

    run_worker(
        "cart",
        Settings.read(),
        rows=repository.ROWS,
        handlers=handlers.HANDLERS,
        topics=consumers.TOPICS,
        projections=repository.PROJECTIONS,
    )
