"""Work that no message starts: telling again what the compacted topics should know and do not."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import structlog
from aiokafka.errors import KafkaError

from libs.common.certificates import RootKey, Roots, UncertifiedError
from libs.common.clock import PLATFORM, now
from libs.common.contracts.identity import RevocationRaised, SigningKeyUpdated
from libs.common.database import PASSING
from libs.common.decision import Message
from libs.common.messaging.broker import Broker
from libs.common.messaging.envelope import Invalid, Reader, Received
from libs.common.messaging.shell import Shell
from libs.common.revocations import KEPT_SECONDS
from services.identity import repository
from services.identity.domain.signing_key import KeyState, SigningKey
from services.identity.handlers import AnnounceTenant, TellEpoch
from services.identity.handlers.signing_keys import AnnounceSigningKey

if TYPE_CHECKING:
    from libs.common.processes.parts import Worker

TENANTS, SIGNING_KEYS, REVOCATIONS = "tenant.v1", "signing-key.v1", "revocation.v1"
PAGE = 500
RETRY_SECONDS = 2.0
LOOK_SECONDS = 30.0
"""How often it is looked whether the last word on each epoch is its own; what is not, twice, is told again."""
NIL = UUID(int=0)

Announcement = tuple[str, UUID, object]
"""Of what subject it is, and the command that makes it, with its tenant."""

log = structlog.get_logger(__name__)


async def announce(worker: "Worker") -> None:
    """Whenever these topics are read from their beginning, publish what they lack: a broker may have lost them.

    What is missing at one moment may be on its way; what is still missing ten seconds later is announced.
    """
    broker, root = Broker(worker.settings), worker.shared(RootKey)
    await _for_ever(Announcements(worker.shell, root, worker.settings.roots).make, broker)


async def tell_epochs(worker: "Worker") -> None:
    """Tell again what compaction would forget: an epoch that an older record, or one that is none, stands behind on its topic."""
    await _for_ever(Epochs(worker.shell).keep, Broker(worker.settings))


async def _for_ever(follow: Callable[[Broker], Awaitable[None]], broker: Broker) -> None:
    while True:
        try:
            await follow(broker)
        except (KafkaError, OSError, TimeoutError, *PASSING, asyncpg.PostgresError) as error:
            log.info("announcements.interrupted", error=str(error), action="beginning again")
        await asyncio.sleep(RETRY_SECONDS)


class Announcements:
    """What the topics should say: of each tenant something, of each signing key something that is believed."""

    def __init__(self, shell: Shell, root: RootKey, roots: Roots) -> None:
        self._shell = shell
        self._root = root
        self._roots = roots

    async def make(self, broker: Broker) -> None:
        """Read the topics from their beginning, for ever; twice, where they end, say what they lack."""
        reader = Reader([SigningKeyUpdated], topic_prefix=broker.prefix)
        heard: set[str] = set()
        missing: set[str] | None = None
        async for record in broker.follow([TENANTS, SIGNING_KEYS]):
            if record is not None:
                subject = (dict(record.headers).get("ce_subject") or b"").decode(errors="replace")
                if record.topic == broker.prefix + TENANTS or self._is_believed(reader.read(record)):
                    heard.add(subject)
                else:
                    heard.discard(subject)
            elif missing is None or missing:
                owed = [each for each in await self._everything() if each[0] not in heard]
                still = [each for each in owed if each[0] in (missing or set())]
                if still:
                    await self._shell.execute_many([self._command(each) for each in still])
                    log.warning("announcements.made", count=len(still), action="none: the topics lacked them, and get them now")
                missing = {subject for subject, *_ in owed} if missing is None else set()

    def _is_believed(self, found: Received | Invalid | None) -> bool:
        """Whether whoever reads this learns the key, or its end: what has no certificate, as of before any, is told again."""
        if not isinstance(found, Received):
            return False
        update = found.message.data
        try:
            if update.state == KeyState.REVOKED:
                self._roots.demand_revoked(update.kid, update.certificate)
            else:
                self._roots.demand_certified({**update.jwk, "kid": update.kid}, update.certificate)
        except (UncertifiedError, KeyError):
            return False
        return True

    def _command(self, announcement: Announcement) -> Message[Any]:
        _, tenant_id, command = announcement
        return self._shell.command(command, tenant_id, actor="identity")

    async def _everything(self) -> Sequence[Announcement]:
        """All tenants and signing keys that there are."""
        found: list[Announcement] = []
        after = NIL
        while True:
            async with self._shell.database.transaction([PLATFORM]) as connection:
                page = await repository.tenant_ids(connection, after=after, limit=PAGE)
                found += [(str(tenant_id), tenant_id, AnnounceTenant()) for tenant_id in page]
                if len(page) < PAGE:
                    return [*found, *map(self._of_key, await repository.signing_keys(connection))]
            after = page[-1]

    def _of_key(self, key: SigningKey) -> Announcement:
        return key.kid, PLATFORM, AnnounceSigningKey(kid=key.kid, root=self._root)


class Epochs:
    """The epochs that can still refuse a token, and the last record of each on the topic."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._last: dict[str, int] = {}
        self._lacking: set[str] = set()

    async def keep(self, broker: Broker) -> None:
        """Read the topic from its beginning, for ever, and look now and then."""
        reader = Reader([RevocationRaised], topic_prefix=broker.prefix)
        self._last, self._lacking, is_whole, look_at = {}, set(), False, 0.0
        async for record in broker.follow([REVOCATIONS]):
            if record is not None:
                found = reader.read(record)
                told = found.message.data.epoch if isinstance(found, Received) else 0
                self._last[(record.key or b"").decode(errors="replace")] = told
            is_whole = is_whole or record is None
            if is_whole and time.monotonic() >= look_at:
                await self.look()
                look_at = time.monotonic() + LOOK_SECONDS

    async def look(self) -> None:
        """Tell what was lacking the last time and still is: what was decided just now is on its way."""
        since_ms = int((now().timestamp() - KEPT_SECONDS) * 1_000)
        async with self._shell.database.transaction([PLATFORM]) as connection:
            found = await repository.live_epochs(connection, since_ms=since_ms)
        live = {name: (tenant_id, epoch) for tenant_id, name, epoch in found}
        lacking = {name for name, (_, epoch) in live.items() if self._last.get(name) != epoch}
        still = sorted(lacking & self._lacking)
        for first in range(0, len(still), PAGE):
            await self._shell.execute_many([self._command(name, live) for name in still[first : first + PAGE]])
        if still:
            log.warning("epochs.told_again", count=len(still), action="none: the topic lacked them, and gets them now")
        self._last = {name: epoch for name, epoch in self._last.items() if name in live}
        self._lacking = lacking

    def _command(self, name: str, live: Mapping[str, tuple[UUID, int]]) -> Message[Any]:
        return self._shell.command(TellEpoch(id=name), live[name][0], actor="identity")


JOBS = (announce, tell_epochs)
