"""Parked messages: rejected (nobody can use them), parked (their decision failed), queued (behind a parked one).

A rejected message blocks nothing. A parked one holds the later messages of its key, in order, until an operator
replays or discards it; what waits behind it follows at once, as far as it goes. A key parked for a gap in its sequence
needs nobody: it heals when the missing message arrives.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import asyncpg
import orjson

from libs.common.clock import new_id, rfc3339
from libs.common.contracts.external import CANONICAL_UUID
from libs.common.database import Connection, Write, passes_by_itself
from libs.common.decision import Message
from libs.common.errors import ConflictError, MalformedError, NotFoundError, UnbelievableError
from libs.common.json_text import is_keepable
from libs.common.messaging.envelope import EventTooLargeError, Header, Invalid, KafkaRecord, Reader, Received
from libs.common.messaging.shell import Failure, Shell

MAX_DIGITS = 19
GAP = "gap"
"""The reason of a message that waits for its predecessor."""

State = Literal["rejected", "parked", "queued", "replayed", "discarded"]


class QueuedError(Exception):
    """An earlier message of the same key is parked."""


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
        return cls(record, "rejected", found.reason, found.detail, _whose(record), _header(record, "ce_type"))

    @classmethod
    def rejected(cls, found: Received, reason: str, detail: str) -> "Refusal":
        """It can be read, and is refused all the same."""
        return cls(found.record, "rejected", reason, detail, found.message.tenant_id, found.message.data.TYPE)

    @classmethod
    def of_failure(cls, found: Received, error: Exception, code: str) -> "Refusal":
        """Its decision failed, or that of one before it."""
        if isinstance(error, UnbelievableError):
            return cls.rejected(found, code, error.detail)
        queued = isinstance(error, QueuedError)
        return cls(
            found.record,
            "queued" if queued else "parked",
            "behind-parked" if queued else code,
            str(error),
            found.message.tenant_id,
            found.message.data.TYPE,
        )


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
    (consumer, topic, part, off, key, headers, payload, state, reason, detail, tenant_id, type)
SELECT $1, * FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[],
    $8::text[], $9::text[], $10::text[], $11::uuid[], $12::text[]) ON CONFLICT DO NOTHING"""

HEADS = """SELECT DISTINCT ON (p.topic, p.key) p.topic, p.key, p.reason
FROM inbox_parked p JOIN unnest($2::text[], $3::bytea[]) AS w(topic, key) USING (topic, key)
WHERE p.consumer = $1 AND p.state IN ('parked', 'queued') ORDER BY p.topic, p.key, p.part, p.off"""

OF_KEYS = """SELECT p.* FROM inbox_parked p JOIN unnest($2::text[], $3::bytea[]) AS w(topic, key) USING (topic, key)
WHERE p.consumer = $1 AND p.state IN ('parked', 'queued') ORDER BY p.topic, p.part, p.off"""

MARK = """UPDATE inbox_parked SET state = $5, decided_at = now(), decided_by = $6, decision = $7
WHERE consumer = $1 AND topic = $2 AND part = $3 AND off = $4"""

STILL_FAILING = """UPDATE inbox_parked SET state = $7, reason = $5, detail = $6, attempts = attempts + 1
WHERE consumer = $1 AND topic = $2 AND part = $3 AND off = $4"""

ONE = "SELECT * FROM inbox_parked WHERE consumer = $1 AND topic = $2 AND part = $3 AND off = $4"

LOCK_POSITION = "SELECT next_offset FROM inbox_position WHERE consumer = $1 AND topic = $2 AND part = $3 FOR UPDATE"

LIST = """SELECT * FROM inbox_parked WHERE consumer = $1
    AND ($2::text IS NULL OR state = $2) AND ($2::text IS NOT NULL OR state IN ('rejected', 'parked', 'queued'))
    AND ($3::uuid IS NULL OR tenant_id = $3) AND ($4::text IS NULL OR type = $4) AND ($5::text IS NULL OR reason = $5)
    AND (topic, part, off) > ($6::text, $7::int, $8::bigint)
ORDER BY topic, part, off LIMIT $9"""

COUNT = """SELECT state, count(*) AS messages, count(DISTINCT (topic, key)) AS keys FROM inbox_parked
WHERE consumer = $1 AND state IN ('rejected', 'parked', 'queued') GROUP BY state"""

ACTIONS = "SELECT id, at, actor, action, target, reason FROM operator_action ORDER BY at DESC LIMIT $1"

AUDIT = "INSERT INTO operator_action (id, actor, action, target, reason) VALUES ($1, $2, $3, $4, $5)"


def park(group: str, refusals: Sequence[Refusal]) -> Write:
    """What sets messages aside, in the transaction that moves past them."""
    records = [refusal.record for refusal in refusals]
    arguments = [
        group,
        [record.topic for record in records],
        [record.partition for record in records],
        [record.offset for record in records],
        [record.key for record in records],
        [_headers(record) for record in records],
        [record.value for record in records],
        [refusal.state for refusal in refusals],
        [refusal.reason for refusal in refusals],
        [_storable(refusal.detail) for refusal in refusals],
        [refusal.tenant_id for refusal in refusals],
        [_storable(refusal.type) for refusal in refusals],
    ]
    return Write(REFUSE, arguments)


def _storable(text: str | None) -> str | None:
    """What a record says of itself may hold what no column takes: half a surrogate pair, or a zero."""
    return text and text.encode(errors="backslashreplace").decode().replace("\0", "\\0")


async def heads(connection: Connection, group: str, keys: Collection[tuple[str, bytes]]) -> dict[tuple[str, bytes], str]:
    """Of these keys, those that are held up, each with the reason of its first parked message."""
    topics, names = [topic for topic, _ in keys], [key for _, key in keys]
    return {(row["topic"], row["key"]): row["reason"] for row in await connection.fetch(HEADS, group, topics, names)}


async def waiting_for_gap(connection: Connection, group: str, keys: Sequence[tuple[str, bytes]], reader: Reader) -> list[Parked]:
    """The messages of these keys that wait for a predecessor."""
    rows = await connection.fetch(OF_KEYS, group, [topic for topic, _ in keys], [key for _, key in keys])
    return [parked for row in rows if isinstance(parked := _read(group, row, reader), Parked)]


async def mark(connection: Connection, parked: Parked, state: State, *, by: str, decision: str) -> None:
    """Say what became of a message that was parked."""
    record = parked.record
    await connection.execute(MARK, parked.group, record.topic, record.partition, record.offset, state, by, decision)


class ParkedMessages:
    """What operators do about messages that were parked: list, show, replay, discard. Every action is audited."""

    def __init__(self, shell: Shell, reader: Reader, group: str) -> None:
        self._shell = shell
        self._reader = reader
        self._group = group

    async def search(
        self,
        *,
        state: str | None = None,
        tenant_id: UUID | None = None,
        type_: str | None = None,
        reason: str | None = None,
        after: str = "",
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """One page, in the order of topic, partition and offset."""
        topic, part, off = _split(after) if after else ("", -1, -1)
        async with self._shell.database.acquire() as connection:
            rows = await connection.fetch(LIST, self._group, state, tenant_id, type_, reason, topic, part, off, limit)
        return [_summary(row) for row in rows]

    async def show(self, parked_id: str) -> dict[str, Any]:
        """One message whole, with its headers and payload as text."""
        row = await self._one(parked_id)
        return {
            **_summary(row),
            "headers": orjson.loads(row["headers"]),
            "payload": (row["payload"] or b"").decode(errors="backslashreplace"),
            "decided_by": row["decided_by"],
            "decision": row["decision"],
        }

    async def counts(self) -> dict[str, tuple[int, int]]:
        """By state: how many messages, of how many keys."""
        async with self._shell.database.acquire() as connection:
            rows = await connection.fetch(COUNT, self._group)
        return {row["state"]: (row["messages"], row["keys"]) for row in rows}

    async def actions(self, *, limit: int) -> list[dict[str, Any]]:
        """What operators have done, newest first."""
        async with self._shell.database.acquire() as connection:
            rows = await connection.fetch(ACTIONS, limit)
        return [{**dict(row), "id": str(row["id"]), "at": rfc3339(row["at"])} for row in rows]

    async def replay(self, parked_id: str, *, actor: str) -> dict[str, Any]:
        """Decide it again, and then whatever waits behind it. Raises ConflictError while it still fails."""
        return await self._act(parked_id, actor, "replay", "replayed by an operator")

    async def discard(self, parked_id: str, *, actor: str, reason: str) -> dict[str, Any]:
        """Never decide it; whatever waits behind it goes on."""
        if not reason.strip():
            raise MalformedError("reason-missing", "say why this message is discarded")
        return await self._act(parked_id, actor, "discard", reason)

    async def _act(self, parked_id: str, actor: str, action: Literal["replay", "discard"], reason: str) -> dict[str, Any]:
        row = await self._one(parked_id)
        first = _read(self._group, row, self._reader)
        if action == "replay" and isinstance(first, Invalid):
            raise ConflictError("still-invalid", f"{first.reason}: {first.detail}")
        tenants = [first.message.tenant_id] if isinstance(first, Parked) else []
        try:
            async with self._shell.database.transaction(tenants) as connection:
                # The consumer takes this lock too: nothing can be queued behind a key that is just being freed.
                await connection.fetchval(LOCK_POSITION, self._group, row["topic"], row["part"])
                line = await self._line(connection, row, first)
                failure, done, aggregates = await self._work_off(connection, line, action, actor, reason)
                await connection.execute(AUDIT, new_id(), actor, f"parked.{action}", parked_id, reason)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, EventTooLargeError) as error:
            if passes_by_itself(error):
                raise
            raise ConflictError("still-failing", f"what it leads to cannot be stored: {error}") from error
        if aggregates is not None:
            self._shell.committed(aggregates)
        if failure is not None and not done:
            raise ConflictError("still-failing", f"{type(failure).__name__}: {failure}")
        stopped = {"stopped_by": f"{type(failure).__name__}: {failure}"} if failure is not None else {}
        return {"id": parked_id, "action": action, "done": done, **stopped}

    async def _line(self, connection: Connection, row: asyncpg.Record, first: Parked | Invalid) -> Sequence[Parked | Invalid]:
        """The message and those behind it, in order. Raises ConflictError when another of its key comes first."""
        if row["state"] == "rejected":
            return [first]
        rows = await connection.fetch(OF_KEYS, self._group, [row["topic"]], [row["key"]])
        if not rows:
            raise ConflictError("already-decided", "this message is no longer parked")
        if rows[0]["reason"] != GAP and _id(rows[0]) != _id(row):
            raise ConflictError("not-first", "an earlier message of its key is parked: decide that one first", first=_id(rows[0]))
        line = [_read(self._group, each, self._reader) for each in rows]
        return [first, *(each for each in line if _id_of(each) != _id(row))]

    async def _work_off(
        self,
        connection: Connection,
        line: Sequence[Parked | Invalid],
        action: Literal["replay", "discard"],
        actor: str,
        reason: str,
    ) -> tuple[Exception | None, list[str], Any]:
        """Decide the line until one fails; answers that failure, the ids that are done, and what changed."""
        readable = [each for each in line if isinstance(each, Parked)]
        handlers = [self._shell.handlers[type(each.message.data)] for each in readable]
        if action == "discard":
            await self._mark(connection, line[0], "discarded", actor, reason)
            if isinstance(line[0], Parked):
                record_it = self._shell.handlers.discards.get(type(line[0].message.data))
                readable, handlers = (readable, [record_it, *handlers[1:]]) if record_it else (readable[1:], handlers[1:])
        failed: list[Exception] = []

        def blocked(_index: int, answers: list[Any]) -> Exception | None:
            if answers and isinstance(answers[-1], Failure):
                failed.append(answers[-1].error)
            return QueuedError("an earlier message of this key failed again") if failed else None

        done = [_id_of(line[0])] if action == "discard" else []
        if not readable:
            return None, done, None
        answers, aggregates = await self._shell.decide(connection, [each.message for each in readable], blocked, handlers)
        await self._shell.store(connection, aggregates)
        for each, answer in zip(readable, answers, strict=True):
            if isinstance(answer, Failure):
                if not isinstance(answer.error, QueuedError):
                    await self._still_failing(connection, each, answer.error)
                    return answer.error, done, aggregates
                break
            if _id_of(each) not in done:
                await self._mark(connection, each, "replayed", actor, reason)
                done.append(_id_of(each))
        return None, done, aggregates

    async def _mark(self, connection: Connection, each: Parked | Invalid, state: State, actor: str, reason: str) -> None:
        record = each.record
        await connection.execute(MARK, self._group, record.topic, record.partition, record.offset, state, actor, reason)

    async def _still_failing(self, connection: Connection, each: Parked, error: Exception) -> None:
        record, code = each.record, str(getattr(error, "code", type(error).__name__))
        state = "rejected" if isinstance(error, UnbelievableError) else "parked"
        scope = (self._group, record.topic, record.partition, record.offset)
        await connection.execute(STILL_FAILING, *scope, code, _storable(str(error)), state)

    async def _one(self, parked_id: str) -> asyncpg.Record:
        async with self._shell.database.acquire() as connection:
            row = await connection.fetchrow(ONE, self._group, *_split(parked_id))
        if row is None:
            raise NotFoundError("parked-message-not-found", "there is no such parked message")
        return row


def _read(group: str, row: asyncpg.Record, reader: Reader) -> Parked | Invalid:
    """Read a stored message as the service reads messages today."""
    headers = [(name, value.encode() if value is not None else None) for name, value in orjson.loads(row["headers"])]
    record = Stored(row["topic"], row["part"], row["off"], row["key"], row["payload"], headers)
    found = reader.read(record)
    if isinstance(found, Received):
        return Parked(group, record, found.message)
    return found or Invalid(record, "unhandled", "this service does not react to such a message any more")


def _summary(row: asyncpg.Record) -> dict[str, Any]:
    return {
        "id": _id(row),
        "state": row["state"],
        "topic": row["topic"],
        "partition": row["part"],
        "offset": row["off"],
        "key": (row["key"] or b"").decode(errors="backslashreplace"),
        "tenant_id": str(row["tenant_id"]) if row["tenant_id"] else None,
        "type": row["type"],
        "reason": row["reason"],
        "detail": row["detail"],
        "attempts": row["attempts"],
        "parked_at": rfc3339(row["parked_at"]),
    }


def _id(row: asyncpg.Record) -> str:
    return f"{row['topic']}:{row['part']}:{row['off']}"


def _id_of(each: Parked | Invalid) -> str:
    return f"{each.record.topic}:{each.record.partition}:{each.record.offset}"


def _split(parked_id: str) -> tuple[str, int, int]:
    topic, _, rest = parked_id.partition(":")
    part, _, off = rest.partition(":")
    fits = len(part) < MAX_DIGITS // 2 and len(off) < MAX_DIGITS
    if not (topic and is_keepable(topic) and part.isdecimal() and off.isdecimal() and fits):
        raise NotFoundError("parked-message-not-found", "an id looks like cart.v1:3:127")
    return topic, int(part), int(off)


def _header(record: KafkaRecord, name: str) -> str | None:
    value = dict(record.headers).get(name)
    return value.decode(errors="backslashreplace") if value is not None else None


def _whose(record: KafkaRecord) -> UUID | None:
    """The tenant that a rejected record is listed under: the one it names, if its key names the same."""
    named = _header(record, "ce_tenantid")
    if named is None or not CANONICAL_UUID.fullmatch(named) or not (record.key or b"").startswith(f"{named}:".encode()):
        return None
    return UUID(named)


def _headers(record: KafkaRecord) -> bytes:
    """As text. A byte that is no UTF-8 is written out; a header without a value keeps having none."""
    text = [[name, value.decode(errors="backslashreplace") if value is not None else None] for name, value in record.headers]
    return orjson.dumps(text)
