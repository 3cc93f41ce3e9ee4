"""Composition root of the payments service: its two processes."""

from typing import TYPE_CHECKING

from services.payments import consumers, handlers, repository
from services.payments.domain.operation import CALL_SECONDS, Operation
from services.payments.settings import Settings

if TYPE_CHECKING:
    from libs.common.http.routes import Service
    from libs.common.messaging.shell import Shell
    from libs.common.messaging.worker import Worker
    from services.payments.gateway.accounts import Gateways


def api() -> None:
    """Serve HTTP."""
    from libs.common.http.api import run_api
    from services.payments.api import ROUTES

    settings = Settings.read()

    async def prepare(service: "Service") -> None:
        gateways = service.extras["gateways"] = gateways_of(service.shell, settings)
        service.extras["master_keys"] = settings.master_keys
        service.extras["platform_webhook_secret"] = settings.stripe_webhook_secret
        service.closing.append(gateways.close)

    run_api(
        "payments",
        settings,
        routes=ROUTES,
        rows=repository.ROWS,
        handlers=handlers.HANDLERS,
        # What is planned here is carried out by a worker, which is called.
        announce=frozenset({Operation}),
        prepare=prepare,
    )


def worker() -> None:
    """Consume, carry out what the provider is to be asked, and publish the outbox."""
    from libs.common.messaging.worker import run_worker
    from services.payments.jobs import JOBS

    settings = Settings.read()

    async def prepare(worker: "Worker") -> None:
        gateways = worker.extras["gateways"] = gateways_of(worker.shell, settings)
        worker.closing.append(gateways.close)

    run_worker(
        "payments",
        settings,
        rows=repository.ROWS,
        handlers=handlers.HANDLERS,
        topics=consumers.TOPICS,
        jobs=JOBS,
        prepare=prepare,
    )


def gateways_of(shell: "Shell", settings: Settings) -> "Gateways":
    """Every tenant's way to its provider account, shared by all that happens in this process."""
    from services.payments.gateway.accounts import Credentials, Gateways
    from services.payments.gateway.stripe import Stripe
    from services.payments.repository.accounts import loading

    return Gateways(
        loading(shell.database),
        Stripe(settings.stripe_api_base, timeout_seconds=CALL_SECONDS),
        platform=Credentials(settings.stripe_api_key.get_secret_value()),
        master_keys=settings.master_keys,
    )
