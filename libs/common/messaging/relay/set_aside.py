"""What operators do with events that the broker refused: list them, have a key's replayed, discard one.

Whoever decides here does so under the relay's role and only marks rows; the relay carries it out between two windows,
within a second or so. Then the function `outbox_settle` puts a replayed key's events back into the outbox, in order,
under new positions (old ones would be dropped by every watermark) and with their own ids (which keep them before later
events of the key). It runs as the owner: the app's role could not insert for other tenants, and the relay's role must
not be able to write events at all; this way it can only have those put back that were in the outbox before, unchanged.

An event is published once, unless a relay that had been given up for dead wakes up and gets it through after all, because
somebody raised the topic's limit in between; a replay then publishes it a second time.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from libs.common.clock import new_id
from libs.common.database import Connection
from libs.common.errors import MalformedError

LIST = """SELECT event_id, tenant_id, topic, key, state, reason, detail, octet_length(payload) AS payload_bytes, parked_at,
    decided_at, decided_by, decision FROM outbox_parked
WHERE state IN ('parked', 'replaying', 'discarding') AND ($1::uuid IS NULL OR tenant_id = $1)
    AND ($2::text IS NULL OR topic = $2) AND ($3::text IS NULL OR reason = $3)
ORDER BY topic, key, id LIMIT $4"""

REPLAY = """UPDATE outbox_parked SET state = 'replaying', decided_at = now(), decided_by = $3, decision = $4
WHERE topic = $1 AND key = $2 AND state = 'parked'"""

DISCARD = """UPDATE outbox_parked SET state = 'discarding', decided_at = now(), decided_by = $2, decision = $3
WHERE event_id = $1 AND state = 'parked'"""

AUDIT = "INSERT INTO operator_action (id, actor, action, target, reason) VALUES ($1, $2, $3, $4, $5)"


@dataclass(frozen=True, slots=True)
class SetAside:
    """An event that waits for a decision, without its payload."""

    event_id: UUID
    tenant_id: UUID
    topic: str
    key: str
    state: str
    reason: str
    detail: str
    payload_bytes: int
    parked_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    decision: str | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


async def listed(
    relay: Connection, *, tenant_id: UUID | None = None, topic: str | None = None, reason: str | None = None, limit: int = 100
) -> list[SetAside]:
    """What waits, key by key in order."""
    rows = await relay.fetch(LIST, tenant_id, topic, reason, limit)
    return [SetAside(**{**row, "key": row["key"].decode(errors="replace")}) for row in rows]


async def replay(relay: Connection, *, topic: str, key: str, actor: str, reason: str = "") -> int:
    """Ask for every event of a key that waits to be published, in order; answers how many were waiting."""
    async with relay.transaction():
        count = _count(await relay.execute(REPLAY, topic, key.encode(), actor, reason))
        if count:
            await relay.execute(AUDIT, new_id(), actor, "replay-set-aside", f"{topic}/{key}", reason)
    return count


async def discard(relay: Connection, *, event_id: UUID, actor: str, reason: str) -> int:
    """Ask for one event never to be published; consumers will see its sequence missing. Later ones of its key wait on."""
    if not reason.strip():
        raise MalformedError("reason-missing", "say why the event may be discarded")
    async with relay.transaction():
        count = _count(await relay.execute(DISCARD, event_id, actor, reason))
        if count:
            await relay.execute(AUDIT, new_id(), actor, "discard-set-aside", str(event_id), reason)
    return count


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])
