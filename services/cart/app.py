"""Composition root of the cart service: its two processes."""

from services.cart import consumers, handlers, repository
from services.cart.settings import Settings


def api() -> None:
    """Serve HTTP."""
    from libs.common.http.api import run_api  # noqa: PLC0415 - workers never import FastAPI
    from services.cart.api import ROUTES  # noqa: PLC0415

    run_api("cart", Settings.read(), routes=ROUTES, rows=repository.ROWS, handlers=handlers.HANDLERS)


def worker() -> None:
    """Consume, and publish the outbox."""
    from libs.common.messaging.worker import run_worker  # noqa: PLC0415 - APIs never import FastStream

    run_worker("cart", Settings.read(), rows=repository.ROWS, handlers=handlers.HANDLERS, topics=consumers.TOPICS)
