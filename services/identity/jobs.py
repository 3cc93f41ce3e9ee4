"""Work that no message starts: telling again what the compacted topics should know and do not."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import structlog
from aiokafka.errors import KafkaError

from libs.common.clock import PLATFORM
from libs.common.database import PASSING
from libs.common.decision import Message
from libs.common.messaging.broker import Broker
from libs.common.messaging.shell import Shell
from services.identity import repository
from services.identity.handlers import AnnounceSigningKey, AnnounceTenant

if TYPE_CHECKING:
    from libs.common.processes.parts import Worker

TENANTS, SIGNING_KEYS = "tenant.v1", "signing-key.v1"
PAGE = 500
RETRY_SECONDS = 2.0
NIL = UUID(int=0)

Announcement = tuple[str, UUID, object]
"""Of what subject it is, and the command that makes it, with its tenant."""

log = structlog.get_logger(__name__)


async def announce(worker: "Worker") -> None:
    """Whenever these topics are read from their beginning, publish what they lack: a broker may have lost them.

    What is missing at one moment may be on its way; what is still missing ten seconds later is announced.
    """
    broker = Broker(worker.settings)
    while True:
        try:
            await _announce(worker.shell, broker)
        except (KafkaError, OSError, TimeoutError, *PASSING, asyncpg.PostgresError) as error:
            log.info("announcements.interrupted", error=str(error), action="beginning again")
        await asyncio.sleep(RETRY_SECONDS)


async def _announce(shell: Shell, broker: Broker) -> None:
    heard: set[str] = set()
    missing: set[str] | None = None
    async for record in broker.follow([TENANTS, SIGNING_KEYS]):
        if record is not None:
            heard.add((dict(record.headers).get("ce_subject") or b"").decode(errors="replace"))
        elif missing is None or missing:
            owed = [each for each in await _everything(shell) if each[0] not in heard]
            still = [each for each in owed if each[0] in (missing or set())]
            if still:
                await shell.execute_many([_command(shell, each) for each in still])
                log.warning("announcements.made", count=len(still), action="none: the topics lacked them, and get them now")
            missing = {subject for subject, *_ in owed} if missing is None else set()


def _command(shell: Shell, announcement: Announcement) -> Message[Any]:
    _, tenant_id, command = announcement
    return shell.command(command, tenant_id, actor="identity")


async def _everything(shell: Shell) -> Sequence[Announcement]:
    """All tenants and signing keys that there are."""
    found: list[Announcement] = []
    after = NIL
    while True:
        async with shell.database.transaction([PLATFORM]) as connection:
            page = await repository.tenant_ids(connection, after=after, limit=PAGE)
            found += [(str(tenant_id), tenant_id, AnnounceTenant()) for tenant_id in page]
            if len(page) < PAGE:
                signing = await repository.signing_keys(connection)
                return [*found, *((key.kid, PLATFORM, AnnounceSigningKey(kid=key.kid)) for key in signing)]
        after = page[-1]


JOBS = (announce,)
