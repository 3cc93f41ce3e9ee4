"""Records as a consumer sees them, of events as their publishers write them."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from libs.common.clock import new_id
from libs.common.contracts import Event
from libs.common.decision import Message, Published
from libs.common.messaging.envelope import encode
from libs.common.messaging.headers import unpack

NOW = datetime(2026, 1, 1, 12, 30, 0, 123_456, tzinfo=UTC)
TENANT = UUID(int=0xA)


@dataclass
class Record:
    """A consumed record, as the inbox sees one."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Any
    partition: int = 0
    offset: int = 0


def written(event: Event, *, tenant_id: UUID = TENANT, sequence: int = 1, prefix: str = "", **cause: Any) -> Record:
    """What its publisher sends of it: our own relay, or somebody else."""
    message = Message(data=None, tenant_id=tenant_id, id="cause", time=NOW, actor="someone", correlation_id="request", **cause)
    published = Published(event, str(getattr(event, event.AGGREGATE)), sequence, message)
    source = f"/cartwright/{event.PUBLISHER}" if event.PUBLISHER else "/test"
    row = encode(published, source=source, event_id=new_id(), time=NOW)
    position = [("ce_relayposition", f"{event.PUBLISHER}/1.22.333".encode())] if event.PUBLISHER else []
    headers = [*unpack(row.headers), *position]
    return Record(prefix + row.topic, row.key, row.payload, headers)


def changed(record: Record, **headers: bytes | None) -> Record:
    """The record with other headers; None takes one away."""
    given = {**dict(record.headers), **headers}
    return replace(record, headers=[(name, value) for name, value in given.items() if value is not None])
