"""The shell around every decision: load what the messages touch, decide in order, store it all, in one transaction.

A batch of any size costs about two round trips: load (one for each kind that is locked), and write; what begins and ends
the transaction rides on them. All that it writes is one statement: what changed, its timers, its events, and how far the
inbox has come. An HTTP request is a batch of one, with its idempotency key claimed in the same transaction.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import structlog

from libs.common.cells import MAIN
from libs.common.clock import new_id, now
from libs.common.database import (
    NEVER_PASSING,
    ConcurrencyError,
    Connection,
    Database,
    Rows,
    Select,
    Write,
    passes_by_itself,
    select,
    write,
)
from libs.common.decision import (
    Aggregate,
    Entry,
    Handler,
    Handlers,
    IdentityMap,
    Message,
    More,
    Ref,
    World,
)
from libs.common.errors import ConflictError, ElsewhereError, ErasedError
from libs.common.messaging import audit
from libs.common.messaging.belief import source_of
from libs.common.messaging.hints import Hints
from libs.common.messaging.idempotency import Claim, Replayed
from libs.common.messaging.outgoing import events, timers
from libs.common.origin import Origin
from libs.common.standings import elsewhere
from libs.common.telemetry import about
from libs.common.telemetry.messages import CommandSpans
from libs.common.tenancy import Tenant

D = TypeVar("D")
R = TypeVar("R")
RETRIES = 8
REFUSED: tuple[type[Exception], ...] = (asyncpg.PostgresError, ConflictError, *NEVER_PASSING)
"""What refuses a whole transaction: something in it that cannot be stored, or too many who want the same rows."""
RETRIED = (ConcurrencyError, asyncpg.exceptions.TransactionRollbackError)

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Failure:
    """A decision that raised; nothing of it stands."""

    error: Exception


def is_dropped(answer: Any) -> bool:
    """Whether a message was not decided because nothing is kept of its tenant any more, or another cell decides on it."""
    return isinstance(answer, Failure) and isinstance(answer.error, ErasedError)


def is_elsewhere(answer: Any) -> bool:
    """Whether another cell decides on it."""
    return isinstance(answer, Failure) and isinstance(answer.error, ElsewhereError)


class Shell:
    """Runs a service's handlers against its database."""

    def __init__(
        self,
        database: Database,
        rows: Sequence[Rows[Any]],
        handlers: Handlers,
        *,
        service: str,
        hints: Hints,
        announce: frozenset[type[Aggregate]] = frozenset(),
        cell: str | None = None,
    ) -> None:
        """`cell`: where its database is; of tenants of other cells nothing is decided. None: it has those of all."""
        self.database = database
        self.cell = cell
        self.handlers = handlers
        self.source = source_of(service)
        self.after_commit: list[Callable[[Sequence[Aggregate]], None]] = []
        """Called with the states that were just committed."""
        self._rows = {row.kind: row for row in rows}
        self._hints = hints
        self._announce = announce

    @property
    def hints(self) -> Hints:
        """What calls this process when something has changed."""
        return self._hints

    def standing_in(self, kind: type[Aggregate], rows: Rows[Any]) -> "Shell":
        """The same shell, with one kind of aggregate kept in another table, and nobody told of anything."""
        kinds = [rows if each.kind is kind else each for each in self._rows.values()]
        service = self.source.rpartition("/")[2]
        return Shell(self.database, kinds, self.handlers, service=service, hints=self._hints, cell=self.cell)

    def command(
        self,
        command: D,
        tenant_id: UUID,
        *,
        id: str | None = None,  # noqa: A002 - what a message calls it
        actor: str | None = None,
        correlation_id: str = "",
        traceparent: str | None = None,
        origin: Origin | None = None,
    ) -> Message[D]:
        """A command of this service's own, with a new id and of its own accord unless said otherwise."""
        return Message(
            data=command,
            tenant_id=tenant_id,
            id=str(new_id()) if id is None else id,
            time=now(),
            source=self.source,
            actor=actor if actor is not None else origin.actor if origin else self.source,
            correlation_id=correlation_id,
            traceparent=traceparent,
            origin=origin,
        )

    async def unknown(self, connection: Connection, tenant_ids: Collection[UUID]) -> set[UUID]:
        """Those of these tenants that this service does not know; none where it keeps no tenants."""
        rows = self._rows.get(Tenant)
        if rows is None or not tenant_ids:
            return set()
        sql = f"SELECT tenant_id FROM {rows.table.name} WHERE tenant_id = ANY ($1::uuid[])"  # noqa: S608 - our own table
        return {*tenant_ids} - {row["tenant_id"] for row in await connection.fetch(sql, [*tenant_ids])}

    async def gone(self, connection: Connection, tenant_ids: Collection[UUID]) -> dict[UUID, ErasedError]:
        """Those of these tenants of which nothing is decided here, and why; in their name, or the platform's."""
        [found] = await select(connection, [_gone(tenant_ids, self.cell)]) if tenant_ids else [[]]
        return _why(found)

    async def execute(self, message: Message[Any], claim: Claim[Any] | None = None) -> Any:
        """Carry out one command; answers what its handler answers, or `Replayed`. Raises the decision's error."""
        with CommandSpans([message]) as spans:
            return await self._execute(spans.messages[0], claim)

    async def _execute(self, message: Message[Any], claim: Claim[Any] | None) -> Any:
        # Who asks and what is asked for may be of two tenants: the platform's operators act on others'.
        tenant_ids = {message.tenant_id, claim.tenant_id if claim else message.tenant_id}

        async def attempt() -> Any:
            async with self.database.transaction(tenant_ids) as connection:
                if claim is not None:
                    remembered = await claim.recalled(connection)
                    if remembered is not None:
                        return Replayed(remembered), None
                [answer], aggregates = await self.decide(connection, [message])
                if isinstance(answer, Failure):
                    raise answer.error
                await self.store(connection, aggregates, *([claim.remembered(answer)] if claim else []), ends=True)
            return answer, aggregates

        answer, aggregates = await retried(attempt)
        if aggregates is not None:
            self.committed(aggregates)
        return answer

    async def execute_many(self, messages: Sequence[Message[Any]]) -> list[Any]:
        """Carry out many commands in one transaction; a failed one is answered with its `Failure` and changes nothing."""
        with CommandSpans(messages) as spans:
            answers = await self._execute_many(spans.messages)
            spans.settle(answer.error if isinstance(answer, Failure) else None for answer in answers)
            return answers

    async def execute_each(self, messages: Sequence[Message[Any]]) -> list[Any]:
        """The same, with a `Failure` also for one that the database refuses however it is tried. Raises what passes by itself."""
        return await isolated(messages, self.execute_many)

    async def _execute_many(self, messages: Sequence[Message[Any]]) -> list[Any]:

        async def attempt() -> tuple[list[Any], IdentityMap]:
            async with self.database.transaction(message.tenant_id for message in messages) as connection:
                answers, aggregates = await self.decide(connection, messages)
                await self.store(connection, aggregates, ends=True)
            return answers, aggregates

        answers, aggregates = await retried(attempt)
        self.committed(aggregates)
        return answers

    async def decide(
        self,
        connection: Connection,
        messages: Sequence[Message[Any]],
        blocked: Callable[[int, list[Any]], Exception | None] = lambda _index, _answers: None,
        handlers: Sequence[Handler[Any, Any]] | None = None,
    ) -> tuple[list[Any], IdentityMap]:
        """Load, then decide in order. `blocked` may refuse a message for what became of those before it."""
        aggregates = IdentityMap()
        at = now()
        handlers = handlers or [self.handlers[type(message.data)] for message in messages]
        asked = {message.tenant_id for message, handler in zip(messages, handlers, strict=True) if not handler.outlives}
        gone = await self._load(connection, aggregates, _first_round(messages, handlers), asked)
        await self._load(connection, aggregates, _second_round(messages, handlers, aggregates, at))
        answers: list[Any] = []
        for index, (message, handler) in enumerate(zip(messages, handlers, strict=True)):
            refusal = blocked(index, answers)
            if message.tenant_id in gone and not handler.outlives:
                refusal = gone[message.tenant_id]
            if refusal is None and handler.more is not None:
                refusal = await self._load_late(connection, aggregates, message, handler.more, at)
            answers.append(Failure(refusal) if refusal else _decided(aggregates, message, handler, at, self.cell))
        return answers, aggregates

    async def _load_late(
        self, connection: Connection, aggregates: IdentityMap, message: Message[Any], more: More, at: datetime
    ) -> Exception | None:
        """What an earlier message of this batch decided may name other aggregates than what was stored; answers its failure."""
        try:
            late = [*aggregates.missing(message.tenant_id, more(World(aggregates, message, at, new_id), message))]
        except Exception as error:  # noqa: BLE001 - as in deciding
            return error
        await self._load(connection, aggregates, [(message.tenant_id, ref) for ref in late])
        return None

    async def _load(
        self,
        connection: Connection,
        aggregates: IdentityMap,
        wanted: Iterable[tuple[UUID, Ref]],
        tenant_ids: Collection[UUID] = (),
    ) -> dict[UUID, ErasedError]:
        """Load what is not yet there, kind by kind in the order the service lists them: the one lock order.

        Each kind that is locked has a statement of its own, which sees what others committed while the one before it
        waited. What is only looked at promises no such thing, and comes along with the last of them; so does the answer, those
        of the tenants of which nothing is decided here.
        """
        locked: dict[type[Aggregate], dict[Entry, None]] = {}
        shared: dict[type[Aggregate], dict[Entry, None]] = {}
        for tenant_id, ref in wanted:
            entry = aggregates.entries[ref.kind, tenant_id, ref.key]
            (shared if ref.shared else locked).setdefault(ref.kind, {})[entry] = None
        only_shared = {kind: [entry for entry in shared[kind] if entry not in locked.get(kind, ())] for kind in shared}
        rounds = [[(kind, [*locked[kind]], True)] for kind in self._rows if kind in locked] or [[]]
        rounds[-1] += [(kind, entries, False) for kind, entries in only_shared.items() if entries]
        gone: Sequence[Sequence[Any]] = ()
        for together in rounds:
            selects = [self._rows[kind].wanted([entry.place for entry in entries], lock=lock) for kind, entries, lock in together]
            if tenant_ids and together is rounds[-1]:
                *loaded, gone = await select(connection, [*selects, _gone(tenant_ids, self.cell)])
            else:
                loaded = await select(connection, selects)
            for (kind, entries, _), found in zip(together, loaded, strict=True):
                aggregates.put_loaded(kind, entries, self._rows[kind].judged(found))
        return _why(gone)

    async def store(self, connection: Connection, aggregates: IdentityMap, *also: Write, ends: bool = False) -> None:
        """Write what changed with its timers and events, and what else there is to write, in one round trip.

        If the transaction `ends` with it, that commits it too, and nothing may follow.

        The order of the outbox's ids is the order of every key, because they are drawn here: when all that is changed has
        been locked, and what is new has not been made by anybody else, or nothing of this stands. What belongs in the audit
        trail goes there in a second one, so that its head is the last that is locked.
        """
        changed: dict[type[Aggregate], list[tuple[Any, int]]] = {kind: [] for kind in self._rows}
        for entry in aggregates.changed:
            changed[entry.kind].append((entry.state, entry.stored_version))
        writes = [each for kind, states in changed.items() if states for each in self._rows[kind].changes(states)]
        if aggregates.reminders:
            writes.append(timers(aggregates.reminders))
        if aggregates.published:
            writes.append(events(aggregates.published, self.source))
        await write(connection, [*writes, *also], ends=ends and not aggregates.acts)
        if aggregates.acts:
            await audit.append(connection, [audit.told(each, self._rows) for each in aggregates.acts])

    def committed(self, aggregates: IdentityMap) -> None:
        """Tell whoever waits. A hint only: it may be lost, and nothing is."""
        changed = [entry.state for entry in aggregates.changed if entry.state is not None]
        self._hints.give(
            outbox=bool(aggregates.published),
            changed=[name for state in changed if type(state) in self._announce for name in state.news],
        )
        for follow_up in self.after_commit:
            follow_up(changed)


def _gone(tenant_ids: Collection[UUID], cell: str | None) -> Select:
    """Those of these tenants that are erased, or in another cell, which is named."""
    ids = [*tenant_ids]
    if cell is None:
        return Select("e.tenant_id, NULL::text", "FROM erasure AS e WHERE e.tenant_id = ANY ($1::uuid[])", [ids])
    return Select("e.tenant_id, e.cell", "FROM erasure AS e WHERE e.tenant_id = ANY ($1::uuid[])", [ids])


def _why(gone: Iterable[Sequence[Any]]) -> dict[UUID, ErasedError]:
    return {tenant_id: elsewhere(cell) if cell else _erased(tenant_id) for tenant_id, cell in gone}


def _erased(tenant_id: UUID) -> ErasedError:
    return ErasedError("tenant-erased", f"of tenant {tenant_id} nothing is kept here any more")


def _decided(
    aggregates: IdentityMap, message: Message[Any], handler: Handler[Any, Any], at: datetime, cell: str | None = None
) -> Any:
    """What the handler answers, or its `Failure`, after which nothing of it stands."""
    world = World(aggregates, message, at, new_id, cell or MAIN)
    try:
        with about(message):
            answer = handler.decide(world, message)
    except Exception as error:  # noqa: BLE001 - whatever a decision raises is that message's own failure
        return Failure(error)
    if message.origin is not None or handler.always_audited:
        origin = audit.origin_of(message, handler)
        if origin is not None:
            world.on_record(origin)
    world.commit()
    return answer


def _first_round(messages: Sequence[Message[Any]], handlers: Sequence[Handler[Any, Any]]) -> list[tuple[UUID, Ref]]:
    return [
        (message.tenant_id, ref) for message, handler in zip(messages, handlers, strict=True) for ref in handler.refs(message)
    ]


def _second_round(
    messages: Sequence[Message[Any]], handlers: Sequence[Handler[Any, Any]], aggregates: IdentityMap, at: datetime
) -> list[tuple[UUID, Ref]]:
    wanted: list[tuple[UUID, Ref]] = []
    for message, handler in zip(messages, handlers, strict=True):
        if handler.more:
            refs = handler.more(World(aggregates, message, at, new_id), message)
            wanted.extend((message.tenant_id, ref) for ref in aggregates.missing(message.tenant_id, refs))
    return wanted


async def isolated(
    messages: Sequence[Message[Any]], execute_many: Callable[[Sequence[Message[Any]]], Awaitable[list[Any]]]
) -> list[Any]:
    """The answers, in order; what the database refuses is halved until the culprit is alone, whose answer is its `Failure`."""
    try:
        return await execute_many(messages)
    except REFUSED as error:
        if passes_by_itself(error):
            raise
        if len(messages) == 1:
            return [Failure(error)]
    half = len(messages) // 2
    return [*await isolated(messages[:half], execute_many), *await isolated(messages[half:], execute_many)]


async def retried(attempt: Callable[[], Awaitable[R]]) -> R:
    """Run a transaction again when somebody else was faster, after a short random wait."""
    for number in range(1, RETRIES + 1):
        try:
            return await attempt()
        except RETRIED as error:
            log.info("transaction.retried", attempt=number, reason=str(error))
            await asyncio.sleep(random.uniform(0, 0.005 * 2**number))  # noqa: S311 - jitter
    try:
        return await attempt()
    except RETRIED as error:
        raise ConflictError("contention", "too many changes at once; try again", retry_after=1) from error
