"""Revocation epochs: since when a tenant's, subject's, session's or client's access tokens are refused. They only rise.

Whoever decides something that takes rights away raises an epoch in the same decision, and so in the same transaction.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import ClassVar
from uuid import UUID

from libs.common.contracts.identity import Revocable, RevocationRaised
from libs.common.decision import Aggregate

MARGIN = timedelta(seconds=1)
"""So far ahead of the decision an epoch lies: for tokens that are being made of what was so before, by any clock of ours.

Who is given a token afterwards is given one of the epoch's moment or later (`Issuer.answer`), so nobody waits for it.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch(Aggregate):
    """Since when the access tokens of one of them are refused. Its id is a UUID or a client's id: no two kinds share one."""

    OWNER: ClassVar[str | None] = None
    id: str
    kind: Revocable
    epoch_ms: int


def raised(
    epoch: Epoch | None,
    *,
    tenant_id: UUID,
    kind: Revocable,
    id: UUID | str,  # noqa: A002 - what the event calls it
    at: datetime,
) -> tuple[Epoch, RevocationRaised]:
    """End every access token that was issued to one of them until now: the epoch as it is to be, and what tells of it."""
    epoch_ms = milliseconds(at + MARGIN)
    if epoch is None:
        epoch = Epoch(tenant_id=tenant_id, id=str(id), kind=kind, epoch_ms=epoch_ms)
    epoch = replace(epoch, epoch_ms=max(epoch.epoch_ms, epoch_ms))
    return epoch, told(epoch)


def is_since(epoch: Epoch, at: datetime) -> bool:
    """Whether it was raised at this moment or later."""
    return milliseconds(at + MARGIN) <= epoch.epoch_ms


def told(epoch: Epoch) -> RevocationRaised:
    """The whole of an epoch, for everybody who checks tokens."""
    return RevocationRaised(kind=epoch.kind, id=epoch.id, epoch=epoch.epoch_ms)


def milliseconds(moment: datetime) -> int:
    """A moment as tokens and epochs compare them."""
    return int(moment.timestamp() * 1000)
