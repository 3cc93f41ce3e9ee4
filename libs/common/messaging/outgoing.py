"""What a transaction writes besides the states that changed: the timers it sets, and its events, into the outbox."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from libs.common.clock import new_id, now
from libs.common.database import Write
from libs.common.decision import Published
from libs.common.messaging.envelope import encode
from libs.common.telemetry.messages import created

SET_TIMERS = """INSERT INTO timer (tenant_id, name, key, due_at, free_at)
SELECT tenant_id, name, key, due_at, due_at
FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::timestamptz[]) AS t(tenant_id, name, key, due_at)
ORDER BY tenant_id, name, key
ON CONFLICT (tenant_id, name, key) DO UPDATE SET due_at = excluded.due_at, free_at = excluded.free_at"""


def timers(reminders: Mapping[tuple[UUID, str, UUID], datetime]) -> Write:
    """What sets the timers that the decisions of one transaction ask for, however many."""
    tenants, names, keys = zip(*reminders, strict=True)
    return Write(SET_TIMERS, [tenants, names, keys, list(reminders.values())])


INSERT_EVENT = "INSERT INTO outbox_event (event_id, tenant_id, topic, key, headers, payload) VALUES ($1, $2, $3, $4, $5, $6)"
INSERT_EVENTS = """INSERT INTO outbox_event (event_id, tenant_id, topic, key, headers, payload)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bytea[], $5::bytea[], $6::bytea[])"""


def events(published: Sequence[Published], source: str) -> Write:
    """What puts the events of one transaction into the outbox, in their order."""
    at = now()
    rows = [encode(each, source=source, event_id=new_id(), time=at) for each in created(published)]
    if len(rows) == 1:
        [row] = rows
        return Write(INSERT_EVENT, [row.event_id, row.tenant_id, row.topic, row.key, row.headers, row.payload])
    columns = [
        [row.event_id for row in rows],
        [row.tenant_id for row in rows],
        [row.topic for row in rows],
        [row.key for row in rows],
        [row.headers for row in rows],
        [row.payload for row in rows],
    ]
    return Write(INSERT_EVENTS, columns)
