"""Looks again at messages that wait for what they refer to, which may still be on its way: nearly always a tenant.

Of each tenant that is waited for, the first message is decided on trial. If what it refers to is still not there the
others of that tenant are let be; if it is there they are all decided, in order, with what is queued behind them. How
long a message waits is counted from when it was first read here, never by its own time, which somebody else wrote.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from operator import itemgetter
from typing import Any
from uuid import UUID

import asyncpg
import structlog
from aiokafka import TopicPartition

from libs.common.clock import PLATFORM, now
from libs.common.database import WHATEVER_IT_SAYS, Connection, Write, passes_by_itself
from libs.common.decision import Aggregate, IdentityMap
from libs.common.errors import NotYetError
from libs.common.messaging.batch import in_line
from libs.common.messaging.envelope import Invalid, Reader
from libs.common.messaging.ordering import key_of
from libs.common.messaging.parked import OF_KEYS, Parked, QueuedError, Refusal, read, storable
from libs.common.messaging.shell import Failure, Shell, is_dropped, is_elsewhere
from libs.common.telemetry import Counter

GRACE_SECONDS = 60
"""How long a message waits before it is parked."""
PAGE = 500
"""So many tenants are tried together, and so many keys decided in one transaction."""
PAUSE_SECONDS = 1.0
NOBODY, BEGINNING = UUID(int=0), ("", -1, -1)

ARRIVED = Counter("cartwright_inbox_arrived_total", "Messages decided after they had waited", ["group"])

# One probe of the index for each tenant, however many of its messages wait.
FIRST_OF_TENANTS = """WITH RECURSIVE first AS (
    (SELECT tenant_id, topic, part, off FROM inbox_parked
     WHERE consumer = $1 AND state = 'waiting' AND tenant_id > $2 ORDER BY tenant_id, topic, part, off LIMIT 1)
    UNION ALL
    SELECT n.* FROM first CROSS JOIN LATERAL (SELECT p.tenant_id, p.topic, p.part, p.off FROM inbox_parked p
     WHERE p.consumer = $1 AND p.state = 'waiting' AND p.tenant_id > first.tenant_id
     ORDER BY p.tenant_id, p.topic, p.part, p.off LIMIT 1) n
) SELECT p.* FROM (SELECT * FROM first LIMIT $3) f JOIN inbox_parked p ON p.consumer = $1
    AND (p.topic, p.part, p.off) = (f.topic, f.part, f.off) ORDER BY p.tenant_id"""

KEYS = """SELECT topic, part, off, key FROM inbox_parked WHERE consumer = $1 AND state = 'waiting' AND tenant_id = $2
    AND (topic, part, off) > ($3::text, $4::int, $5::bigint) ORDER BY topic, part, off LIMIT $6"""

LOCK_POSITIONS = """SELECT FROM inbox_position JOIN unnest($2::text[], $3::int[]) AS w(topic, part) USING (topic, part)
WHERE consumer = $1 ORDER BY topic, part FOR UPDATE OF inbox_position"""

SETTLE = """UPDATE inbox_parked p SET state = w.state, reason = w.reason, detail = w.detail, attempts = attempts + 1,
    decided_at = CASE WHEN w.state IN ('replayed', 'discarded') THEN now() END,
    decided_by = CASE WHEN w.state IN ('replayed', 'discarded') THEN 'inbox' END,
    decision = CASE w.state WHEN 'replayed' THEN 'what it refers to arrived' WHEN 'discarded' THEN w.detail END
FROM unnest($2::text[], $3::int[], $4::bigint[], $5::text[], $6::text[], $7::text[]) AS w(topic, part, off, state, reason, detail)
WHERE p.consumer = $1 AND p.topic = w.topic AND p.part = w.part AND p.off = w.off"""

GIVE_UP = """UPDATE inbox_parked SET state = 'parked'
WHERE consumer = $1 AND state = 'waiting' AND tenant_id = ANY ($2::uuid[]) AND parked_at < now() - $3::interval
RETURNING tenant_id, reason"""

PARK_KEY = """UPDATE inbox_parked SET state = 'parked', reason = 'database', detail = $4
WHERE consumer = $1 AND topic = $2 AND key = $3 AND state = 'waiting'"""

Key = tuple[str, int, bytes]

log = structlog.get_logger(__name__)


class Waiting:
    """The messages of one consumer that wait."""

    def __init__(self, shell: Shell, reader: Reader, group: str, *, grace_seconds: float = GRACE_SECONDS) -> None:
        self._shell = shell
        self._reader = reader
        self._group = group
        self._grace = timedelta(seconds=grace_seconds)
        self._awaited: set[UUID] = set()
        self._arrived = asyncio.Event()
        shell.after_commit.append(self._committed)

    def noted(self, tenant_id: UUID) -> None:
        """A message of this tenant has been set aside to wait."""
        self._awaited.add(tenant_id)

    def _committed(self, states: Sequence[Aggregate]) -> None:
        """Whatever a tenant that is waited for has now may be what is waited for: look at once."""
        if self._awaited and any(state.tenant_id in self._awaited for state in states):
            self._arrived.set()

    async def run(self) -> None:
        """Look again and again, a fifth of the time at most."""
        while True:
            began = time.monotonic()
            try:
                await self.look()
            except WHATEVER_IT_SAYS as error:
                log.warning("inbox.waiting_not_looked_at", error=str(error), action="it is tried again")
            pause = max(PAUSE_SECONDS, 4 * (time.monotonic() - began))
            try:
                async with asyncio.timeout(pause):
                    await self._arrived.wait()
            except TimeoutError:
                continue
            finally:
                self._arrived.clear()

    async def look(self) -> None:
        """Try the first message of every tenant that is waited for; decide all of those whose time has come."""
        after, awaited = NOBODY, set[UUID]()
        while True:
            async with self._shell.database.transaction([PLATFORM]) as connection:
                rows = await connection.fetch(FIRST_OF_TENANTS, self._group, after, PAGE)
            if not rows:
                break
            here = await self._here(rows)
            for tenant_id in here:
                await self._decide_all(tenant_id)
            absent = [row["tenant_id"] for row in rows if row["tenant_id"] not in here]
            awaited |= {*absent}
            await self._give_up(absent)
            after = rows[-1]["tenant_id"]
        self._awaited = awaited

    async def _here(self, rows: Sequence[asyncpg.Record]) -> set[UUID]:
        """The tenants whose first message would not wait any more. Nothing of the trial stands."""
        found = [read(self._group, row, self._reader) for row in rows]
        readable = [each for each in found if isinstance(each, Parked)]
        here = {row["tenant_id"] for row, each in zip(rows, found, strict=True) if isinstance(each, Invalid)}
        try:
            async with self._shell.database.transaction({each.message.tenant_id for each in readable}) as connection:
                answers, _ = await self._shell.decide(connection, [each.message for each in readable])
        except Exception as error:
            if passes_by_itself(error):
                raise
            # One of them is poison, which is found where they are decided.
            return here | {each.message.tenant_id for each in readable}
        waits = [isinstance(answer, Failure) and isinstance(answer.error, NotYetError) for answer in answers]
        return here | {each.message.tenant_id for each, still in zip(readable, waits, strict=True) if not still}

    async def _decide_all(self, tenant_id: UUID) -> None:
        """A page of keys at a time, and others take their turn after each."""
        place = BEGINNING
        while True:
            async with self._shell.database.transaction([tenant_id]) as connection:
                rows = await connection.fetch(KEYS, self._group, tenant_id, *place, PAGE)
            if not rows:
                return
            began = time.monotonic()
            await self._decide(tenant_id, list(dict.fromkeys((row["topic"], row["part"], row["key"]) for row in rows)))
            place = rows[-1]["topic"], rows[-1]["part"], rows[-1]["off"]
            await asyncio.sleep(time.monotonic() - began)

    async def _decide(self, tenant_id: UUID, keys: Sequence[Key]) -> None:
        """All that is set aside of these keys, in one transaction; what it is refused for is found by halving."""
        try:
            async with self._shell.database.transaction([tenant_id]) as connection:
                aggregates, arrived = await self._decided(connection, keys)
        except Exception as error:
            if passes_by_itself(error):
                raise
            if len(keys) > 1:
                middle = len(keys) // 2
                await self._decide(tenant_id, keys[:middle])
                await self._decide(tenant_id, keys[middle:])
                return
            [(topic, _, key)], why = keys, storable(f"{type(error).__name__}: {error}")
            log.exception("inbox.waiting_refused", key=repr(key), tenant_id=str(tenant_id), action="./cartwright parked list")
            async with self._shell.database.transaction([tenant_id]) as connection:
                await connection.execute(PARK_KEY, self._group, topic, key, why)
        else:
            ARRIVED.labels(self._group).inc(arrived)
            self._shell.committed(aggregates)

    async def _decided(self, connection: Connection, keys: Sequence[Key]) -> tuple[IdentityMap, int]:
        partitions = sorted({TopicPartition(topic, part) for topic, part, _ in keys})
        # The consumer takes these locks too: nothing can be queued behind a key that is just being decided.
        topics, parts = [each.topic for each in partitions], [each.partition for each in partitions]
        await connection.execute(LOCK_POSITIONS, self._group, topics, parts)
        rows = await connection.fetch(OF_KEYS, self._group, [topic for topic, _, _ in keys], [key for _, _, key in keys])
        waits = {(row["topic"], row["key"]) for row in rows if row["state"] == "waiting"}
        rows = [row for row in rows if (row["topic"], row["key"]) in waits]
        found = [read(self._group, row, self._reader) for row in rows]
        unreadable = [each for each in found if isinstance(each, Invalid)]
        overdue = [each.record for row, each in zip(rows, found, strict=True) if now() - row["parked_at"] > self._grace]
        blocked = {(each.record.topic, each.record.key or b"") for each in unreadable}
        line = self._in_order([each for each in found if isinstance(each, Parked)])
        answers, aggregates = await self._shell.decide(connection, [each.message for each in line], in_line(line, blocked))
        settled: list[tuple[Any, str, str, str]] = [(each.record, "rejected", each.reason, each.detail) for each in unreadable]
        for each, answer in zip(line, answers, strict=True):
            if not isinstance(answer, Failure):
                settled.append((each.record, "replayed", "arrived", ""))
            elif is_elsewhere(answer) and each.record in overdue:  # a tenant that moves takes along what has waited for less
                settled.append((each.record, "discarded", "elsewhere", "another cell decides on it"))
            elif not isinstance(answer.error, QueuedError) and not is_dropped(answer):
                refusal = Refusal.of_failure(each, answer.error)
                settled.append((refusal.record, refusal.state, refusal.reason, refusal.detail))
        await self._shell.store(connection, aggregates, *([self._settle(settled)] if settled else []))
        return aggregates, sum(state == "replayed" for _, state, _, _ in settled)

    def _in_order(self, found: Sequence[Parked]) -> list[Parked]:
        """As they came; what comes from outside by its sequence, and what is absolute before any delta, as a batch does."""
        is_delta = [self._shell.handlers[type(each.message.data)].is_delta for each in found]
        if not any(is_delta):
            return [*found]
        keyed = [((*key_of(each), delta, each.message.sequence), each) for each, delta in zip(found, is_delta, strict=True)]
        return [each for _, each in sorted(keyed, key=itemgetter(0))]

    def _settle(self, settled: Sequence[tuple[Any, str, str, str]]) -> Write:
        records = [record for record, _, _, _ in settled]
        arguments = [
            self._group,
            [record.topic for record in records],
            [record.partition for record in records],
            [record.offset for record in records],
            [state for _, state, _, _ in settled],
            [storable(reason) for _, _, reason, _ in settled],
            [storable(detail) for _, _, _, detail in settled],
        ]
        return Write(SETTLE, arguments)

    async def _give_up(self, tenant_ids: Sequence[UUID]) -> None:
        """Park what has waited long enough. Whoever decides one of them at this moment wins."""
        async with self._shell.database.transaction([PLATFORM]) as connection:
            rows = await connection.fetch(GIVE_UP, self._group, tenant_ids, self._grace)
        if rows:
            log.error(
                "inbox.waited_in_vain",
                group=self._group,
                messages=len(rows),
                tenants=len({row["tenant_id"] for row in rows}),
                reason=rows[0]["reason"],
                action="./cartwright parked list; replay them when what they refer to is here",
            )
