"""What operators do with events that the broker refused: list them, have a key's replayed, discard one.

Whoever decides here does so under the relay's role and only marks rows; the relay carries it out between two windows,
within a second or so. Then the function `outbox_settle` puts a replayed key's events back into the outbox, in order,
under new positions (old ones would be dropped by every watermark) and with their own ids (which keep them before later
events of the key). It runs as the owner: the app's role could not insert for other tenants, and the relay's role must
not be able to write events at all; this way it can only have those put back that were in the outbox before, unchanged.

An event is published once, unless a relay that had been given up for dead wakes up and gets it through after all, because
somebody raised the topic's limit in between; a replay then publishes it a second time.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from libs.common.clock import rfc3339
from libs.common.database import Connection, opened
from libs.common.errors import MalformedError, NotFoundError
from libs.common.messaging.audit import Act, append
from libs.common.messaging.headers import UnreadableHeadersError, unpack
from libs.common.origin import Origin
from libs.common.tenancy import SETTING

LIST = """SELECT event_id, tenant_id, topic, key, headers, state, reason, detail, octet_length(payload) AS payload_bytes,
    parked_at, decided_at, decided_by, decision FROM outbox_parked
WHERE state IN ('parked', 'replaying', 'discarding') AND ($1::text IS NULL OR state = $1)
    AND ($2::uuid IS NULL OR tenant_id = $2) AND ($3::text IS NULL OR reason = $3)
ORDER BY topic, key, id LIMIT $4"""

REPLAY = """UPDATE outbox_parked SET state = 'replaying', decided_at = now(), decided_by = $3, decision = $4
WHERE topic = $1 AND key = $2 AND state = 'parked' RETURNING tenant_id"""

DISCARD = """UPDATE outbox_parked SET state = 'discarding', decided_at = now(), decided_by = $2, decision = $3
WHERE event_id = $1 AND state = 'parked' RETURNING tenant_id"""

IN_THE_NAME_OF = f"SELECT set_config('{SETTING}', $1, true)"


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """An event that waits for a decision, without its payload."""

    event_id: UUID
    tenant_id: UUID
    topic: str
    key: str
    type: str | None
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
    relay: Connection, *, state: str | None = None, tenant_id: UUID | None = None, reason: str | None = None, limit: int = 100
) -> list[ParkedEvent]:
    """What waits, key by key in order."""
    found: list[ParkedEvent] = []
    for row in await relay.fetch(LIST, state, tenant_id, reason, limit):
        members = dict(row)
        named = {"key": row["key"].decode(errors="replace"), "type": _type_of(members.pop("headers"))}
        found.append(ParkedEvent(**members | named))
    return found


async def replay(relay: Connection, *, topic: str, key: str, actor: Origin, reason: str = "") -> int:
    """Ask for every event of a key that waits to be published, in order; answers how many were waiting."""
    async with relay.transaction():
        rows = await relay.fetch(REPLAY, topic, key.encode(), actor.client_id, reason)
        await _tell(relay, rows, actor, "replay-set-aside", f"{topic}/{key}", reason)
    return len(rows)


async def discard(relay: Connection, *, event_id: UUID, actor: Origin, reason: str) -> int:
    """Ask for one event never to be published; consumers will see its sequence missing. Later ones of its key wait on."""
    if not reason.strip():
        raise MalformedError("reason-missing", "say why the event may be discarded")
    async with relay.transaction():
        rows = await relay.fetch(DISCARD, event_id, actor.client_id, reason)
        await _tell(relay, rows, actor, "discard-set-aside", str(event_id), reason)
    return len(rows)


async def _tell(
    relay: Connection, rows: Sequence[asyncpg.Record], actor: Origin, action: str, object_id: str, reason: str
) -> None:
    """Put it into the trail of whoever the events are of: one tenant, for they have one key."""
    for tenant_id in {row["tenant_id"] for row in rows}:
        await relay.execute(IN_THE_NAME_OF, str(tenant_id))
        act = Act(tenant_id=tenant_id, origin=actor, action=action, kind="outbox-event", object_id=object_id, reason=reason)
        await append(relay, [act])


ONE = "SELECT topic, key, headers, payload FROM outbox_parked WHERE event_id = $1 AND state = 'parked' ORDER BY id LIMIT 1"
PREFIX = "outbox:"


class OutboxParked:
    """Parked events for the operator surface, under ids that begin with `outbox:`."""

    def __init__(self, relay_url: str) -> None:
        self._url = relay_url

    @asynccontextmanager
    async def _relay(self) -> AsyncIterator[Connection]:
        """Operators are rare: a connection each time, under the role that may see these rows."""
        relay = await opened(self._url, timeout=5, command_timeout=10, settings={"application_name": "operator"})
        try:
            yield relay
        finally:
            await relay.close()

    async def search(
        self, *, state: str | None, type_: str | None, tenant_id: UUID | None, reason: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """What waits, as parked messages are listed."""
        async with self._relay() as relay:
            found = await listed(relay, state=state, tenant_id=tenant_id, reason=reason, limit=limit)
        return [{**_plain(each.as_dict()), "id": f"{PREFIX}{each.event_id}"} for each in found if type_ in (None, each.type)]

    async def show(self, parked_id: str) -> dict[str, Any]:
        """One event whole."""
        async with self._relay() as relay:
            row = await self._one(relay, parked_id)
        headers = [[name, (value or b"").decode(errors="backslashreplace")] for name, value in unpack(row["headers"])]
        payload = row["payload"].decode(errors="backslashreplace")
        key = row["key"].decode(errors="backslashreplace")
        return {"id": parked_id, "topic": row["topic"], "key": key, "headers": headers, "payload": payload}

    async def replay(self, parked_id: str, *, actor: Origin) -> dict[str, Any]:
        """Ask for every waiting event of its key to be published, in order."""
        async with self._relay() as relay:
            row = await self._one(relay, parked_id)
            count = await replay(
                relay, topic=row["topic"], key=row["key"].decode(), actor=actor, reason="replayed by an operator"
            )
        return {"id": parked_id, "action": "replay", "done": [parked_id], "events": count}

    async def discard(self, parked_id: str, *, actor: Origin, reason: str) -> dict[str, Any]:
        """Ask for it never to be published."""
        async with self._relay() as relay:
            await self._one(relay, parked_id)
            await discard(relay, event_id=UUID(parked_id.removeprefix(PREFIX)), actor=actor, reason=reason)
        return {"id": parked_id, "action": "discard", "done": [parked_id]}

    async def _one(self, relay: Connection, parked_id: str) -> Any:
        try:
            row = await relay.fetchrow(ONE, UUID(parked_id.removeprefix(PREFIX)))
        except ValueError:
            row = None
        if row is None:
            raise NotFoundError("parked-message-not-found", "no such event waits for a decision")
        return row


def _type_of(headers: bytes) -> str | None:
    """The event's; what cannot be read was set aside for that."""
    try:
        named = dict(unpack(headers))
    except UnreadableHeadersError:
        return None
    return (named.get("ce_type") or b"").decode(errors="replace") or None


def _plain(members: dict[str, Any]) -> dict[str, Any]:
    """Times and ids as text, for JSON."""
    return {name: _text(value) for name, value in members.items()}


def _text(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    return str(value) if isinstance(value, UUID) else value
