"""What processes that check tokens follow from the beginning, without a group: keys, what was revoked, how tenants stand."""

import asyncio
from dataclasses import dataclass, field

import structlog
from aiokafka.errors import KafkaError

from libs.common.choices import Choices
from libs.common.contracts import Event
from libs.common.contracts.identity import RevocationRaised, SigningKeyUpdated, TenantUpdated
from libs.common.keys import Keys
from libs.common.messaging.broker import Broker
from libs.common.messaging.envelope import Invalid, Reader, Received
from libs.common.placements import Placements
from libs.common.revocations import REFUSED, Revocations
from libs.common.standings import OPEN, Standings

RETRY_SECONDS = 2

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Tenants:
    """What is to be known of tenants where customers are answered."""

    standings: Standings
    choices: Choices
    placements: Placements = field(default_factory=Placements)

    def read_to_its_end(self) -> None:
        """The topic has told all that it had."""
        self.standings.read_to_its_end()
        self.placements.read_to_its_end()


async def follow(keys: Keys, revocations: Revocations, broker: Broker, tenants: Tenants | None = None) -> None:
    """Learn them from their topics, for ever; identity may be down and nobody is logged out.

    How tenants stand is for processes that answer customers: the others decide on what was begun, and that goes on.

    While the broker is away, what is known stays so: a token that was revoked meanwhile goes on to its end, minutes later.
    """
    told: list[type[Event]] = [SigningKeyUpdated, RevocationRaised, *([] if tenants is None else [TenantUpdated])]
    reader = Reader(told, topic_prefix=broker.prefix)
    while True:
        try:
            async for record in broker.follow([each.TOPIC for each in told]):
                if record is None:
                    revocations.read_to_its_end()
                    if tenants is not None:
                        tenants.read_to_its_end()
                else:
                    _take(keys, revocations, tenants, reader.read(record))
        except (KafkaError, OSError, TimeoutError) as error:
            action = "give this service its rights at the broker"
            if not await broker.denies(error, work="follow", line="keys.follower_refused", action=action):
                log.warning("keys.follower_interrupted", error=str(error), action="known keys stay valid; following again")
        except Exception:
            # Whatever it is, a process that follows no more would let in whom identity has turned away.
            log.exception("keys.follower_failed", action="following again; tell us of it")
        await asyncio.sleep(RETRY_SECONDS)


def _take(keys: Keys, revocations: Revocations, tenants: Tenants | None, found: Received | Invalid | None) -> None:
    """Take one record. What is none, or comes from elsewhere, is passed over: those after it count all the same."""
    if isinstance(found, Invalid):
        REFUSED.labels(found.reason).inc()
        log.error("keys.unreadable", reason=found.reason, detail=found.detail, action="passed over; what is known stays so")
    elif found is not None:
        told: SigningKeyUpdated | RevocationRaised | TenantUpdated = found.message.data
        match told:
            case SigningKeyUpdated():
                _take_key(keys, told)
            case RevocationRaised():
                revocations.learn(told.kind, told.id, told.epoch)
            case TenantUpdated():
                if tenants is not None:
                    tenants.standings.learn(told.tenant_id, told.version, told.status)
                    tenants.choices.learn(told.tenant_id, told.version, told.settings, is_open=told.status in OPEN)
                    tenants.placements.learn(told.tenant_id, told.version, told.cell)


def _take_key(keys: Keys, update: SigningKeyUpdated) -> None:
    if update.state == "revoked":
        keys.forget(update.kid, update.certificate)
    elif update.jwk.get("kid") == update.kid:
        keys.learn(update.jwk, update.certificate)
