"""Composition root of the payments service: what its two processes are made of."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from libs.common.processes.parts import Process, ServiceParts
from services.payments import consumers, handlers, repository, tables
from services.payments.domain.provider.operation import CALL_SECONDS, Operation
from services.payments.settings import Settings

if TYPE_CHECKING:
    from services.payments.gateway.accounts import Access


@asynccontextmanager
async def context(process: Process) -> "AsyncIterator[Access]":
    """Every tenant's way to its provider account, shared by all that happens in this process."""
    from services.payments.gateway.accounts import Access, Credentials, Gateways
    from services.payments.gateway.stripe import Stripe
    from services.payments.repository.provider.accounts import loading

    settings: Settings = process.settings
    gateways = Gateways(
        loading(process.shell_of),
        Stripe(settings.stripe_api_base, timeout_seconds=CALL_SECONDS),
        platform=Credentials(settings.stripe_api_key.get_secret_value()),
        master_keys=settings.master_keys,
        connect_client_id=settings.stripe_connect_client_id,
    )
    try:
        yield Access(gateways, settings.master_keys, settings.stripe_webhook_secrets)
    finally:
        await gateways.close()


PARTS = ServiceParts(
    name="payments",
    settings=Settings,
    rows=repository.ROWS,
    handlers=handlers.HANDLERS,
    topics=consumers.TOPICS,
    holdings=tables.HOLDINGS,
    has_jobs=True,
    announced_by_requests=frozenset({Operation}),  # what a request plans a worker carries out
    context=context,
)
