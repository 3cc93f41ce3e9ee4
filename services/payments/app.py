"""Composition root of the payments service: its two processes."""

from services.payments import consumers, handlers, repository
from services.payments.settings import Settings


def api() -> None:
    """Serve HTTP."""
    from libs.common.http.api import run_api
    from services.payments.api import ROUTES

    run_api("payments", Settings.read(), routes=ROUTES, rows=repository.ROWS, handlers=handlers.HANDLERS)


def worker() -> None:
    """Consume, carry out what the provider is to be asked, and publish the outbox."""
    from libs.common.messaging.worker import run_worker
    from services.payments.jobs import JOBS

    run_worker(
        "payments",
        Settings.read(),
        rows=repository.ROWS,
        handlers=handlers.HANDLERS,
        topics=consumers.TOPICS,
        jobs=JOBS,
    )
