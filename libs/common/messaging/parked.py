"""Messages set aside: rejected, waiting, parked, and queued behind one that waits or is parked.

Rejected is what nobody can use; what refers to something that is not there yet waits; parked is whose decision failed.

A rejected message blocks nothing. A parked one holds the later messages of its key, in order, until an operator
replays or discards it; what waits behind it follows at once, as far as it goes. Two kinds need nobody: a key parked for
a gap in its sequence heals when the missing message arrives, and one that waits is looked at again (`waiting.py`).
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import UUID

import asyncpg
import orjson

from libs.common.contracts.external import CANONICAL_UUID
from libs.common.database import Connection, Write
from libs.common.decision import Message
from libs.common.errors import NotYetError, UnbelievableError
from libs.common.json_text import NotJsonError, read_leniently
from libs.common.messaging.envelope import Header, Invalid, KafkaRecord, Reader, Received
from libs.common.sensitive import all_without_sensitive, is_name, without_sensitive

GAP = "gap"
"""The reason of a message that waits for its predecessor."""

MAX_SOURCE = 500

State = Literal["rejected", "waiting", "parked", "queued", "replayed", "discarded"]


class QueuedError(Exception):
    """An earlier message of the same key is set aside."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message that is parked instead of applied."""

    record: KafkaRecord
    state: State
    reason: str
    detail: str
    tenant_id: UUID | None = None
    type: str | None = None

    @classmethod
    def of_invalid(cls, found: Invalid) -> "Refusal":
        """Nobody can use it."""
        record = found.record
        return cls(record, "rejected", found.reason, found.detail, whose(record), _header(record, "ce_type"))

    def unless_in(self, unknown: Collection[UUID]) -> "Refusal":
        """The same; listed under nobody if the tenant it names is one of these."""
        return replace(self, tenant_id=None) if self.tenant_id in unknown else self

    @classmethod
    def rejected(cls, found: Received, reason: str, detail: str) -> "Refusal":
        """It can be read, and is refused all the same."""
        return cls(found.record, "rejected", reason, detail, found.message.tenant_id, found.message.data.TYPE)

    @classmethod
    def of_failure(cls, found: "Received | Parked", error: Exception) -> "Refusal":
        """Its decision failed, or that of one before it."""
        message, reason = found.message, "behind-parked" if isinstance(error, QueuedError) else code_of(error)
        detail = error.detail if isinstance(error, UnbelievableError) else str(error)
        return cls(found.record, state_after(error), reason, detail, message.tenant_id, message.data.TYPE)


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it was parked; reads like one that comes from Kafka."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]


@dataclass(frozen=True, slots=True)
class Parked:
    """A message that was parked, read again."""

    group: str
    record: Stored
    message: Message[Any]


REFUSE = """INSERT INTO inbox_parked
    (consumer, topic, part, off, key, headers, payload, state, reason, detail, tenant_id, type, source)
SELECT $1, * FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[],
    $8::text[], $9::text[], $10::text[], $11::uuid[], $12::text[], $13::text[]) ON CONFLICT DO NOTHING"""

HEADS = "SELECT * FROM inbox_heads($1, $2, $3)"

# By the key's index alone: see `inbox_heads`.
OF_KEYS = """SELECT p.* FROM inbox_parked p JOIN unnest($2::text[], $3::bytea[]) AS w(topic, key)
    ON p.key = w.key AND p.topic || '' = w.topic
WHERE p.consumer || '' = $1 AND p.state IN ('waiting', 'parked', 'queued') ORDER BY p.topic, p.part, p.off"""

MARK = """UPDATE inbox_parked SET state = $5, decided_at = now(), decided_by = $6, decision = $7
WHERE consumer = $1 AND topic = $2 AND part = $3 AND off = $4"""


def code_of(error: Exception) -> str:
    """The reason under which a message is set aside."""
    return str(getattr(error, "code", type(error).__name__))


def state_after(error: Exception) -> State:
    """What becomes of a message whose decision raised this."""
    if isinstance(error, QueuedError):
        return "queued"
    if isinstance(error, UnbelievableError):
        return "rejected"
    return "waiting" if isinstance(error, NotYetError) else "parked"


def park(group: str, refusals: Sequence[Refusal]) -> Write:
    """What sets messages aside, in the transaction that moves past them."""
    records = [refusal.record for refusal in refusals]
    arguments = [
        group,
        [record.topic for record in records],
        [record.partition for record in records],
        [record.offset for record in records],
        [_kept(record.key) for record in records],
        [_headers(record) for record in records],
        [kept_payload(record.value) for record in records],
        [refusal.state for refusal in refusals],
        [storable(refusal.reason) for refusal in refusals],
        [storable(without_sensitive(refusal.detail)) for refusal in refusals],
        [refusal.tenant_id for refusal in refusals],
        [storable(refusal.type) for refusal in refusals],
        [source_of(record) for record in records],
    ]
    return Write(REFUSE, arguments)


def storable(text: str | None) -> str | None:
    """What a record says of itself, without what no column takes: half a surrogate pair, or a zero."""
    return text and text.encode(errors="backslashreplace").decode().replace("\0", "\\0")


async def heads(connection: Connection, group: str, keys: Collection[tuple[str, bytes]]) -> dict[tuple[str, bytes], str]:
    """Of these keys, those that are held up, each with the reason of its first parked message."""
    topics, names = [topic for topic, _ in keys], [key for _, key in keys]
    return {(row["topic"], row["key"]): row["reason"] for row in await connection.fetch(HEADS, group, topics, names)}


async def waiting_for_gap(connection: Connection, group: str, keys: Sequence[tuple[str, bytes]], reader: Reader) -> list[Parked]:
    """The messages of these keys that wait for a predecessor."""
    rows = await connection.fetch(OF_KEYS, group, [topic for topic, _ in keys], [key for _, key in keys])
    return [parked for row in rows if isinstance(parked := read(group, row, reader), Parked)]


async def mark(connection: Connection, parked: Parked, state: State, *, by: str, decision: str) -> None:
    """Say what became of a message that was parked."""
    record = parked.record
    await connection.execute(MARK, parked.group, record.topic, record.partition, record.offset, state, by, decision)


def read(group: str, row: asyncpg.Record, reader: Reader) -> Parked | Invalid:
    """Read a stored message as the service reads messages today."""
    headers = [(name, value.encode() if value is not None else None) for name, value in orjson.loads(row["headers"])]
    record = Stored(row["topic"], row["part"], row["off"], row["key"], row["payload"], headers)
    found = reader.read(record)
    if isinstance(found, Received):
        return Parked(group, record, found.message)
    return found or Invalid(record, "unhandled", "this service does not react to such a message any more")


def _header(record: KafkaRecord, name: str) -> str | None:
    value = dict(record.headers).get(name)
    return value.decode(errors="backslashreplace") if value is not None else None


def source_of(record: KafkaRecord) -> str:
    """Who it says it comes from, as far as an index keeps it; nothing if it does not say."""
    return (storable(_header(record, "ce_source")) or "")[:MAX_SOURCE]


def whose(record: KafkaRecord) -> UUID | None:
    """The tenant that a rejected record is listed under: the one it names, if its key names the same."""
    named = _header(record, "ce_tenantid")
    if named is None or not CANONICAL_UUID.fullmatch(named) or not (record.key or b"").startswith(f"{named}:".encode()):
        return None
    return UUID(named)


def kept_payload(payload: bytes | None) -> bytes | None:
    """A payload as it is kept while it is set aside: as whoever reads it would keep it, without what is sensitive."""
    if payload is None:
        return None
    try:
        value = read_leniently(payload)
    except NotJsonError:
        return without_sensitive(payload.decode(errors="surrogateescape")).encode(errors="surrogateescape")
    harmless = all_without_sensitive(value)
    return payload if harmless == value else json.dumps(harmless).encode()


def _kept(name: bytes | None) -> bytes | None:
    """A key, or what a header says: names, unless there is something in it that no name has."""
    if name is None or is_name(text := name.decode(errors="surrogateescape")):
        return name
    return without_sensitive(text).encode(errors="surrogateescape")


def _headers(record: KafkaRecord) -> bytes:
    """As text. A byte that is no UTF-8 is written out; a header without a value keeps having none."""
    named = [(name.encode(errors="backslashreplace").decode(), value) for name, value in record.headers]
    kept = [(name, _kept(value)) for name, value in named]
    text = [(name, value.decode(errors="backslashreplace") if value is not None else None) for name, value in kept]
    return orjson.dumps(text)
