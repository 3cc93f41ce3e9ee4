"""Access tokens ended before their time: what any decision here raises an epoch with, and how one is told again."""

from dataclasses import dataclass
from uuid import UUID

from libs.common.contracts.identity import Revocable
from libs.common.decision import Message, Ref, World
from services.identity.domain import revocation
from services.identity.domain.revocation import Epoch
from services.identity.handlers.table import HANDLERS


@dataclass(frozen=True, slots=True, kw_only=True)
class TellEpoch:
    """Publish an epoch as it is, to whoever has not heard of it."""

    id: str


def epoch_ref(id: UUID | str) -> Ref:  # noqa: A002 - what the event calls it
    """What a message that may raise an epoch must name among its refs."""
    return Ref(Epoch, str(id))


def raise_epoch(world: World, kind: Revocable, id: UUID | str) -> None:  # noqa: A002 - as above
    """End every access token that was issued until now to this tenant, subject, session or client."""
    epoch = world.get(Epoch, str(id))
    world.save(*revocation.raised(epoch, tenant_id=world.tenant_id, kind=kind, id=id, at=world.now))


@HANDLERS.on(TellEpoch, lambda m: [epoch_ref(m.data.id)])
def tell_epoch(world: World, message: Message[TellEpoch]) -> None:
    """A new version without a change: every reader keeps the highest, so nobody minds who knows it already."""
    epoch = world.get(Epoch, message.data.id)
    if epoch is not None:
        world.save(epoch, revocation.told(epoch))
