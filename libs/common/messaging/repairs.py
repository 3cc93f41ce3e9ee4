"""What is done about messages that were parked: list, show, replay, discard. Every action is on record.

A tenant sees and repairs its own alone, twice over: its id is in every query, and its transactions reach no other rows. The
platform's operators see all, also what names no tenant that can be believed.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import UUID

import asyncpg
import orjson

from libs.common.clock import PLATFORM, rfc3339
from libs.common.database import NEVER_PASSING, Connection, passes_by_itself, write
from libs.common.errors import ConflictError, ElsewhereError, MalformedError, NotFoundError
from libs.common.messaging.audit import Act, append
from libs.common.messaging.envelope import Invalid, Reader
from libs.common.messaging.idempotency import Claim, Replayed
from libs.common.messaging.parked import GAP, MARK, OF_KEYS, Parked, QueuedError, State, code_of, read, state_after, storable
from libs.common.messaging.shell import Failure, Shell
from libs.common.origin import Origin

Place = tuple[str, int, int]
"""Where a record lies: topic, partition, offset."""
FIRST: Place = ("", -1, -1)
"""Before all of them."""
ID = re.compile(r"([A-Za-z0-9._-]{1,249}):([0-9]{1,10}):([0-9]{1,19})")
MAX_PART, MAX_OFF = 2**31, 2**63


STILL_FAILING = """UPDATE inbox_parked SET state = $7, reason = $5, detail = $6, attempts = attempts + 1
WHERE consumer = $1 AND topic = $2 AND part = $3 AND off = $4"""

ONE = """SELECT * FROM inbox_parked WHERE consumer = $1 AND topic = $2 AND part = $3 AND off = $4
    AND ($5::uuid IS NULL OR tenant_id = $5)"""

STATE = "SELECT state FROM inbox_parked WHERE consumer = $1 AND topic = $2 AND part = $3 AND off = $4"

LOCK_POSITION = "SELECT next_offset FROM inbox_position WHERE consumer = $1 AND topic = $2 AND part = $3 FOR UPDATE"

LIST = """SELECT * FROM inbox_parked WHERE consumer = $1
    AND ($2::text IS NULL OR state = $2) AND ($2::text IS NOT NULL OR state IN ('rejected', 'waiting', 'parked', 'queued'))
    AND ($3::uuid IS NULL OR tenant_id = $3) AND ($4::text IS NULL OR type = $4) AND ($5::text IS NULL OR reason = $5)
    AND (topic, part, off) > ($6::text, $7::int, $8::bigint) AND ($10::text IS NULL OR source = $10)
ORDER BY topic, part, off LIMIT $9"""

COUNT = """SELECT state, count(*) AS messages, count(DISTINCT (topic, key)) AS keys FROM inbox_parked
WHERE consumer = $1 AND state IN ('rejected', 'waiting', 'parked', 'queued') GROUP BY state"""

# What processes of the version before have told, or still tell, stands beside the audit trail.
ACTIONS = """SELECT * FROM audit_of_operators($1)
UNION ALL (SELECT id::text, at, actor, action, target, reason FROM operator_action ORDER BY at DESC LIMIT $1)
ORDER BY at DESC LIMIT $1"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be done about one message, and who wants it."""

    parked_id: str
    action: Literal["replay", "discard"]
    actor: Origin
    reason: str
    of: UUID | None = None
    """The tenant that wants it; None: the platform."""
    claim: Claim[dict[str, Any]] | None = None


class _DoneBeforeError(Exception):
    """The idempotency key had been used for the same."""

    def __init__(self, replayed: Replayed) -> None:
        super().__init__("done before")
        self.replayed = replayed


class _NothingDoneError(Exception):
    """It fails as it did: nothing of this transaction stands."""


class ParkedMessages:
    """The messages that one consumer group parked. `of` is the tenant whose they must be; None: anybody's."""

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
        source: str | None = None,
        after: Place = FIRST,
        limit: int = 50,
        of: UUID | None = None,
    ) -> list[dict[str, Any]]:
        """One page, in the order of topic, partition and offset."""
        async with self._shell.database.transaction([of or PLATFORM]) as connection:
            rows = await connection.fetch(LIST, self._group, state, of or tenant_id, type_, reason, *after, limit, source)
        return [_summary(row) for row in rows]

    async def show(self, parked_id: str, *, of: UUID | None = None) -> dict[str, Any]:
        """One message whole, with its headers and payload as text."""
        row = await self._one(parked_id, of)
        return {
            **_summary(row),
            "headers": orjson.loads(row["headers"]),
            "payload": (row["payload"] or b"").decode(errors="backslashreplace"),
            "decided_by": row["decided_by"],
            "decision": row["decision"],
        }

    async def counts(self) -> dict[str, tuple[int, int]]:
        """By state: how many messages, of how many keys."""
        async with self._shell.database.transaction([PLATFORM]) as connection:
            rows = await connection.fetch(COUNT, self._group)
        return {row["state"]: (row["messages"], row["keys"]) for row in rows}

    async def actions(self, *, limit: int) -> list[dict[str, Any]]:
        """What operators have done, newest first."""
        async with self._shell.database.acquire() as connection:
            rows = await connection.fetch(ACTIONS, limit)
        return [{**dict(row), "at": rfc3339(row["at"])} for row in rows]

    async def replay(self, parked_id: str, *, actor: Origin) -> dict[str, Any]:
        """Decide it again, and then whatever waits behind it. Raises ConflictError while it still fails."""
        return await self._act(Wanted(parked_id, "replay", actor, "replayed by an operator"))

    async def discard(self, parked_id: str, *, actor: Origin, reason: str) -> dict[str, Any]:
        """Never decide it; whatever waits behind it goes on."""
        return await self._act(Wanted(parked_id, "discard", actor, reason))

    async def decide_once(self, wanted: Wanted) -> dict[str, Any] | Replayed:
        """The same under a caller's idempotency key, which is used up when something was done."""
        try:
            return await self._act(wanted)
        except _DoneBeforeError as done_before:
            return done_before.replayed
        except _NothingDoneError:
            # Neither is the key: it was given back. That it failed once more is recorded apart.
            return await self._act(replace(wanted, claim=None))

    async def _demand_here(self, connection: Connection, tenant_ids: Collection[UUID]) -> None:
        """Raise ElsewhereError for a tenant that has left this cell: what was set aside of it went along."""
        for error in (await self._shell.gone(connection, tenant_ids)).values():
            if isinstance(error, ElsewhereError):
                raise error

    async def _act(self, wanted: Wanted) -> dict[str, Any]:
        parked_id, action, actor, reason = wanted.parked_id, wanted.action, wanted.actor.client_id, wanted.reason
        if action == "discard" and not reason.strip():
            raise MalformedError("reason-missing", "say why this message is discarded")
        row = await self._one(parked_id, wanted.of)
        first = read(self._group, row, self._reader)
        if action == "replay" and isinstance(first, Invalid):
            raise ConflictError("still-invalid", f"{first.reason}: {first.detail}")
        try:
            async with self._shell.database.transaction(_tenants(row, first)) as connection:
                if wanted.claim is not None and (known := await wanted.claim.recalled(connection)) is not None:
                    raise _DoneBeforeError(Replayed(known))
                # The consumer takes this lock too: nothing can be queued behind a key that is just being freed.
                await connection.fetchval(LOCK_POSITION, self._group, row["topic"], row["part"])
                await self._demand_here(connection, _tenants(row, first))
                line = await self._line(connection, row, first)
                failure, done, aggregates = await self._decided(connection, line, action, actor, reason)
                stopped = {"stopped_by": f"{type(failure).__name__}: {failure}"} if failure is not None else {}
                outcome = {"id": parked_id, "action": action, "done": done, **stopped}
                if wanted.claim is not None:
                    if not done:
                        raise _NothingDoneError
                    await write(connection, [wanted.claim.remembered(outcome)])
                await append(connection, [_told(wanted, row)])
        except (asyncpg.PostgresError, asyncpg.InterfaceError, *NEVER_PASSING) as error:
            if passes_by_itself(error):
                raise
            raise ConflictError("still-failing", f"what it leads to cannot be stored: {error}") from error
        if aggregates is not None:
            self._shell.committed(aggregates)
        if failure is not None and not done:
            raise ConflictError("still-failing", f"{type(failure).__name__}: {failure}")
        return outcome

    async def _line(self, connection: Connection, row: asyncpg.Record, first: Parked | Invalid) -> Sequence[Parked | Invalid]:
        """The message and those behind it, in order. Raises ConflictError when another of its key comes first.

        As they are now: somebody else may have decided it while we waited for the lock.
        """
        if await connection.fetchval(STATE, self._group, row["topic"], row["part"], row["off"]) == "rejected":
            return [first]
        rows = await connection.fetch(OF_KEYS, self._group, [row["topic"]], [row["key"]])
        if _id(row) not in map(_id, rows):
            raise ConflictError("already-decided", "this message is no longer parked")
        if rows[0]["reason"] != GAP and _id(rows[0]) != _id(row):
            raise ConflictError("not-first", "an earlier message of its key is parked: decide that one first", first=_id(rows[0]))
        line = [read(self._group, each, self._reader) for each in rows]
        return [first, *(each for each in line if _id_of(each) != _id(row))]

    async def _decided(
        self,
        connection: Connection,
        line: Sequence[Parked | Invalid],
        action: Literal["replay", "discard"],
        actor: str,
        reason: str,
    ) -> tuple[Exception | None, list[str], Any]:
        """Work the line off, or, if its first still fails, all of it with that one last.

        What it lacks may be told by one that had to wait behind it: a return that was heard of before its shipment.
        """
        failure, done, aggregates = await self._work_off(connection, line, action, actor, reason)
        if failure is None or done or len(line) == 1:
            return failure, done, aggregates
        await connection.execute("SAVEPOINT as_they_came")
        late = await self._work_off(connection, [*line[1:], line[0]], action, actor, reason)
        if late[0] is None and len(late[1]) == len(line):
            return late
        await connection.execute("ROLLBACK TO SAVEPOINT as_they_came")
        return failure, done, aggregates

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
        record, said = each.record, (storable(code_of(error)), storable(str(error)), state_after(error))
        await connection.execute(STILL_FAILING, self._group, record.topic, record.partition, record.offset, *said)

    async def _one(self, parked_id: str, of: UUID | None) -> asyncpg.Record:
        place = _split(parked_id)
        async with self._shell.database.transaction([of or PLATFORM]) as connection:
            row = await connection.fetchrow(ONE, self._group, *place, of) if place else None
        if row is None:
            raise NotFoundError("parked-message-not-found", "there is no such parked message for you")
        return row


def _told(wanted: Wanted, row: asyncpg.Record) -> Act:
    """What was done, for the trail of whoever the message is of."""
    return Act(
        tenant_id=row["tenant_id"] or PLATFORM,
        origin=wanted.actor,
        action=f"parked.{wanted.action}",
        kind="parked-message",
        object_id=wanted.parked_id,
        reason=wanted.reason,
    )


def _tenants(row: asyncpg.Record, first: Parked | Invalid) -> set[UUID]:
    """In whose name a message is decided about: its tenant's, whose line it is; the platform's if it names none to believe."""
    named = {first.message.tenant_id} if isinstance(first, Parked) else set()
    return {row["tenant_id"] or PLATFORM, *named}


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
        "source": row["source"],
        "reason": row["reason"],
        "detail": row["detail"],
        "attempts": row["attempts"],
        "parked_at": rfc3339(row["parked_at"]),
    }


def _id(row: asyncpg.Record) -> str:
    return f"{row['topic']}:{row['part']}:{row['off']}"


def _id_of(each: Parked | Invalid) -> str:
    return f"{each.record.topic}:{each.record.partition}:{each.record.offset}"


def place_of(cursor: str | None) -> Place:
    """Where a page begins. Raises MalformedError."""
    place = FIRST if cursor is None else _split(cursor)
    if place is None:
        raise MalformedError("bad-cursor", "use the next_cursor you were given")
    return place


def _split(parked_id: str) -> Place | None:
    """The place that an id such as `cart.v1:3:127` names, if it can be one."""
    match = ID.fullmatch(parked_id)
    place = match and (match[1], int(match[2]), int(match[3]))
    return place if place and place[1] < MAX_PART and place[2] < MAX_OFF else None
