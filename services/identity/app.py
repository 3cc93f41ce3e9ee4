"""Composition root of the identity service: its two processes, and the first operator."""

import asyncio
from dataclasses import replace
from functools import partial

from libs.common.clock import PLATFORM, now
from libs.common.database import Database
from libs.common.messaging.shell import retried
from libs.common.settings import variable
from services.identity import consumers, handlers, repository
from services.identity.domain.client import PLATFORM_CLIENT, digest_of, operator
from services.identity.domain.tenant import Tenant
from services.identity.settings import Settings

ANNOUNCED = frozenset({Tenant})
"""What a request may be waiting for."""


def api() -> None:
    """Serve HTTP."""
    from libs.common.http.api import run_api  # workers never import FastAPI
    from services.identity.api import ROUTES
    from services.identity.api.issuer import start_issuer

    settings = Settings.read()
    run_api(
        "identity",
        settings,
        routes=ROUTES,
        rows=repository.ROWS,
        handlers=handlers.HANDLERS,
        announce=ANNOUNCED,
        prepare=partial(start_issuer, address=settings.issuer, master_key=settings.master_key_bytes),
    )


def worker() -> None:
    """Consume, and publish the outbox."""
    from libs.common.messaging.worker import run_worker  # APIs never import FastStream

    run_worker(
        "identity",
        Settings.read(),
        rows=repository.ROWS,
        handlers=handlers.HANDLERS,
        topics=consumers.TOPICS,
        announce=ANNOUNCED,
        patient=True,  # of three busy topics one event a tenant concerns us
    )


def bootstrap() -> None:
    """Make the platform operator's client, or give it the secret that is set now. `migrate` calls this, as the owner."""
    owner_url, secret = variable("OWNER_DATABASE_URL"), variable("PLATFORM_CLIENT_SECRET")
    if owner_url and secret:
        asyncio.run(_bootstrap(owner_url, secret))


async def _bootstrap(owner_url: str, secret: str) -> None:
    from libs.common.auth import PLATFORM_OPERATOR, ROLES  # a worker checks no token

    scopes = tuple(sorted(ROLES[PLATFORM_OPERATOR]))
    database = await Database.connect(owner_url, application="identity-bootstrap", size=1)

    async def attempt() -> None:
        async with database.transaction([PLATFORM]) as connection:
            found = await repository.CLIENTS.load(connection, [(PLATFORM, PLATFORM_CLIENT)], lock=True)
            stored = found[0] if found else None
            client = operator(stored, PLATFORM, digest_of(secret), scopes, now())
            if client != stored:
                await repository.CLIENTS.save(connection, [(replace(client, version=client.version + 1), client.version)])

    try:
        await retried(attempt)
    finally:
        await database.close()
