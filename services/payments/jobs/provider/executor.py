"""Time in: carry out what was planned, record what came of it, and take up what nobody has any more.

An operation is recorded before its call and its outcome after it; in between no transaction and no connection is held,
so a slow provider costs memory and nothing else. Whatever is lost on the way is found by its lease and sent again under
the same key.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from libs.common.clock import now
from libs.common.database import PASSING, never_passes, poll
from libs.common.decision import Aggregate, Message
from libs.common.errors import ConflictError
from libs.common.messaging.shell import REFUSED, Failure, Shell, isolated
from libs.common.telemetry import Counter, Gauge, bound
from services.payments.domain.provider.operation import (
    CLAIMED_LEASE,
    NOT_WANTED,
    OPERATIONS_DUE,
    Operation,
    OperationKind,
    following,
)
from services.payments.domain.provider.outcome import Outcome, Rejected, Succeeded, Throttled, name_of
from services.payments.gateway.accounts import Access
from services.payments.handlers.outcomes import Call, Followed, RecordOutcome
from services.payments.jobs.provider.calling import GatewayOf, carry_out
from services.payments.jobs.provider.wishes import Wishes
from services.payments.repository.provider.operations import (
    claim_operations,
    due_operations,
    give_back_operations,
    open_operations,
)

if TYPE_CHECKING:
    from libs.common.processes.parts import Worker

IN_FLIGHT = 100
"""Calls at once. Together with the provider's latency this bounds the throughput, and connections do not."""
MAX_RECORDED = 500
RECOVERY_SECONDS = 1.0
BACKLOG_SECONDS = 0.05
DRAIN_SECONDS = 4

OPEN_COUNT = Gauge("cartwright_provider_operations_open", "Operations whose outcome is not recorded")
OPEN_SECONDS = Gauge("cartwright_provider_operations_oldest_seconds", "Age of the oldest of them")
TAKEN_UP = Counter(
    "cartwright_provider_operations_taken_up_total", "Operations that nobody had any more, or whose turn came late"
)
LATE = Counter("cartwright_provider_outcomes_late_total", "Outcomes that came after somebody else's, and were ignored")

log = structlog.get_logger(__name__)


async def operate(worker: "Worker") -> None:
    """Carry out provider operations for as long as the worker lives, then leave none half done that can be finished."""
    executor = Executor(worker.shell, worker.shared(Access).gateways.of)
    worker.shell.after_commit.append(executor.committed)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(executor.record(), name="recorder")
            group.create_task(executor.recover(), name="recovery")
    finally:
        await executor.drain()


class Executor:
    """Calls the provider for the operations of one process, so many at once, and records what it answered."""

    def __init__(
        self,
        shell: Shell,
        gateway_of: GatewayOf,
        *,
        in_flight: int = IN_FLIGHT,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._shell = shell
        self._clock = clock
        self._gateway_of = gateway_of
        self._in_flight = in_flight
        self._wishes = Wishes(shell.database)
        self._held: dict[UUID, Operation] = {}
        """Taken up here, and not recorded yet."""
        self._queue: deque[Operation] = deque()
        self._overdue: list[Operation] = []
        """Those whose turn came too late for a call within the lease."""
        self._calls: set[asyncio.Task[None]] = set()
        self._outcomes: list[Message[RecordOutcome]] = []
        self._recordable = asyncio.Event()
        self._draining = False

    def committed(self, changed: Sequence[Aggregate]) -> None:
        """Take up what has just been planned here, if the plan says that it is ours for a while."""
        for state in changed:
            if isinstance(state, Operation) and state.version == 1 and state.is_held(self._clock()):
                self._take(state)

    def _take(self, operation: Operation) -> None:
        """Queue it; what was taken up before goes first, for it is older."""
        self._held[operation.id] = operation
        if self._draining:
            return
        if operation.tries > 1:
            self._queue.appendleft(operation)
        else:
            self._queue.append(operation)
        self._start()

    def _start(self) -> None:
        while self._queue and len(self._calls) < self._in_flight:
            call = asyncio.create_task(self._call(self._queue.popleft()))
            self._calls.add(call)
            call.add_done_callback(self._ended)

    def _ended(self, call: "asyncio.Task[None]") -> None:
        self._calls.discard(call)
        if not call.cancelled() and (error := call.exception()) is not None:
            log.critical("operation.lost", error=repr(error), exc_info=error, action="taken up again when its lease ends")
        if not self._draining:
            self._start()

    # --- Calling --------------------------------------------------------------------------------------------------

    async def _call(self, operation: Operation) -> None:
        """Carry it out as a task of its own, whose log lines are about this operation and not about what made room for it."""
        with bound(operation.traceparent, tenant_id=str(operation.tenant_id), operation_id=str(operation.id)):
            try:
                await self._carry_out(operation)
            except Exception:
                self._held.pop(operation.id, None)  # somebody may have it again when its lease ends
                raise

    async def _carry_out(self, operation: Operation) -> None:
        withheld = await self._withheld(operation)
        if not operation.is_held(self._clock()):
            self._overdue.append(operation)
            return
        calls: list[Call] = []
        outcome = await carry_out(operation, self._gateway_of, calls) if withheld is None else withheld
        followed = await self._follow(operation, outcome)
        command = RecordOutcome.of(operation, outcome, calls, followed)
        message = self._shell.command(
            command,
            operation.tenant_id,
            id=f"{operation.id}:{operation.tries}",
            actor=operation.resolution.by if operation.resolution else None,
            traceparent=operation.traceparent,
        )
        self._outcomes.append(message)
        self._recordable.set()

    async def _follow(self, operation: Operation, outcome: Outcome) -> Followed | None:
        """Go on to what the operation plans to follow, if there is time: one recording for both saves a transaction a payment."""
        then = None if self._draining else following(operation, outcome)
        if then is None or not isinstance(outcome, Succeeded) or await self._withheld(then) is not None:
            return None
        if not then.is_held(self._clock()):
            return None
        calls: list[Call] = []
        came_to = await carry_out(then, self._gateway_of, calls)
        # Of one that was turned away nothing was sent: it is planned by itself.
        return None if isinstance(came_to, Throttled) else Followed(made=outcome, outcome=came_to, calls=tuple(calls))

    async def _withheld(self, operation: Operation) -> Outcome | None:
        """What comes of a method that is not put to its issuer, for nobody wants the money any more. None: it is wanted."""
        if operation.kind is not OperationKind.CONFIRM:
            return None
        match await self._wishes.wants(operation.tenant_id, operation.payment_id):
            case True:
                return None
            case False:
                return Rejected(NOT_WANTED, "not put to its issuer, for nothing is to be held any more")
            case None:
                return Throttled(None)

    # --- Recording ------------------------------------------------------------------------------------------------

    async def record(self) -> None:
        """Record outcomes as they come; those that come meanwhile make the next batch."""
        while True:
            await self._recordable.wait()
            self._recordable.clear()
            await self._record_waiting()

    async def _record_waiting(self) -> None:
        while self._outcomes:
            batch = self._outcomes[:MAX_RECORDED]
            for message, answer in zip(batch, await isolated(batch, self._record), strict=True):
                _note(message, answer)
            del self._outcomes[: len(batch)]
            for message in batch:
                self._held.pop(message.data.operation_id, None)

    async def _record(self, batch: Sequence[Message[RecordOutcome]]) -> list[Any]:
        """One transaction, tried until the database is back."""
        while True:
            try:
                return await self._shell.execute_many(batch)
            except PASSING as error:
                if never_passes(error):
                    raise
                log.warning("outcomes.waiting", error=str(error), outcomes=len(batch), action="recording again in a second")
                await asyncio.sleep(1)
            except REFUSED:
                raise
            except Exception as error:
                # Whatever it is, it is one outcome's fault: it is found by halving, and the others are recorded.
                raise ConflictError("outcome-not-recorded", f"{type(error).__name__}: {error}") from error

    # --- Recovering -----------------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Take up operations that nobody has any more: at once, then every second, and when another process calls."""
        await poll(self._recover, every=RECOVERY_SECONDS, waiting="recovery.waiting")

    async def _recover(self) -> bool:
        with self._shell.hints.expect(OPERATIONS_DUE) as hint:
            if await self._take_up_due():
                await asyncio.sleep(BACKLOG_SECONDS)
            else:
                await _first_of(hint, RECOVERY_SECONDS)
        return True

    async def _take_up_due(self) -> int:
        database, own = self._shell.database, self._overdue[: self._in_flight]
        room = self._in_flight - len(self._held) + len(own)
        async with database.acquire() as connection:
            count, oldest_seconds = await open_operations(connection)
            due = await due_operations(connection, room + len(self._held)) if room > 0 else []
        OPEN_COUNT.set(count)
        OPEN_SECONDS.set(oldest_seconds)
        others = [(tenant_id, key) for tenant_id, key in due if key not in self._held]
        if not others and not own:
            return 0
        tenant_ids = {tenant_id for tenant_id, _ in others} | {operation.tenant_id for operation in own}
        begun = self._clock()
        async with database.transaction(tenant_ids) as connection:
            claimed = await claim_operations(connection, others, own, CLAIMED_LEASE, ends=True)
        del self._overdue[: len(own)]
        for operation in own:
            self._held.pop(operation.id, None)
        for operation in claimed:
            TAKEN_UP.inc()
            # The lease begins by the database's clock, and is kept here by our own: the two may be apart.
            self._take(replace(operation, due_at=begun + CLAIMED_LEASE))
        return len(claimed)

    # --- Leaving --------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Let calls in flight end, record them, and give the rest back so that nobody waits for our leases."""
        self._draining = True
        if self._calls:
            await asyncio.wait(self._calls, timeout=DRAIN_SECONDS)
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        await self._wishes.close()
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._record_waiting()
                await self._give_back(list(self._held.values()))
        except PASSING as error:
            log.warning("drain.incomplete", error=str(error), action="whoever comes next waits for the leases to end")

    async def _give_back(self, operations: Sequence[Operation]) -> None:
        if operations:
            async with self._shell.database.transaction({each.tenant_id for each in operations}) as connection:
                await give_back_operations(connection, operations, ends=True)


async def _first_of(hint: "asyncio.Future[None]", seconds: float) -> None:
    """Wait for the hint, which may be lost: at most so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await hint


def _note(message: Message[RecordOutcome], answer: Any) -> None:
    if isinstance(answer, Failure):
        _not_recorded(message, answer.error)
    elif not answer:
        LATE.inc()


def _not_recorded(message: Message[RecordOutcome], error: Exception) -> None:
    """It stays open, so it is taken up again when its lease ends."""
    log.error(
        "outcome.not_recorded",
        operation_id=str(message.data.operation_id),
        outcome=name_of(message.data.outcome),
        error=f"{type(error).__name__}: {error}",
        action="the operation stays open and is taken up again",
    )
