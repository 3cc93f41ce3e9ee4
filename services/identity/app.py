"""Composition root of the identity service: what its two processes are made of, and the first operator."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from libs.common.certificates import RootKey
from libs.common.clock import PLATFORM, now
from libs.common.database import Database
from libs.common.messaging.audit import Act, append
from libs.common.messaging.erasing import BuryTenant
from libs.common.messaging.shell import retried
from libs.common.origin import Origin
from libs.common.processes.parts import Process, ServiceParts
from libs.common.processes.running import ended
from libs.common.settings import variable
from services.identity import consumers, handlers, repository, tables
from services.identity.domain.client import PLATFORM_CLIENT, Client, digest_of, operator
from services.identity.domain.tenant import Tenant
from services.identity.settings import Settings

if TYPE_CHECKING:
    from services.identity.api.desk import Desk
    from services.identity.api.issuer import Issuer


@asynccontextmanager
async def context(process: Process) -> "AsyncIterator[tuple[Issuer, Desk] | RootKey]":
    """An API process's issuer, which has a key to sign with before it serves its first request, and desk; a worker's root key."""
    settings: Settings = process.settings
    if process.kind == "worker":
        yield settings.root_key
        return
    from services.identity.api.desk import Desk
    from services.identity.api.issuer import Issuer
    from services.identity.api.keyring import KeyRing, Terms
    from services.identity.api.letters import Letters
    from services.identity.api.raised import Raised
    from services.identity.api.seals import Seals

    raised = Raised(process.revocations)
    process.shell.after_commit.append(raised.learn)
    seals, terms = Seals(*settings.master_keys), Terms(settings.signing_key_lead, settings.signing_key_period)
    ring = KeyRing(process.shell, process.keys, settings.root_key, seals, terms, issuer=settings.issuer)
    await ring.start()
    keeping = asyncio.create_task(ring.keep(), name="signing-keys")
    letters = Letters.read(settings.letters_key) if settings.letters_key else None
    consoles = settings.console_urls.split()
    desk = Desk(ring.secret, letters, shows_tokens=settings.shows_invitations, consoles=consoles)
    try:
        yield Issuer(ring, raised, address=settings.issuer), desk
    finally:
        await ended([keeping])


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
                changed = replace(client, version=client.version + 1)
                await repository.CLIENTS.save(connection, [(changed, client.version)])
                await append(connection, [_given_operator(stored, changed)])

    try:
        await retried(attempt)
    finally:
        await database.close()


def _given_operator(before: Client | None, after: Client) -> Act:
    """For the audit trail: no command does this, but whoever holds the owner's password."""
    canonical = repository.CLIENTS.canonical
    return Act(
        tenant_id=PLATFORM,
        origin=Origin(actor="migrate", by_platform=True),
        action="give-operator",
        kind="client",
        object_id=after.id,
        before=canonical(before) if before else None,
        after=canonical(after),
    )


PARTS = ServiceParts(
    name="identity",
    settings=Settings,
    rows=repository.ROWS,
    handlers=handlers.HANDLERS,
    topics=consumers.TOPICS,
    holdings=tables.HOLDINGS,
    bury=handlers.HANDLERS[BuryTenant],
    announce=frozenset({Tenant}),  # whose onboarding a request may be waiting for
    context=context,
    bootstrap=bootstrap,
    is_in_cells=False,
    has_jobs=True,
    is_patient=True,  # of three busy topics one event a tenant concerns it
)
