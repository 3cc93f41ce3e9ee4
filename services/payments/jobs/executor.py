"""Time in: carry out what was planned, record what came of it, and take up what nobody has any more.

An operation is recorded before its call and its outcome after it; in between no transaction and no connection is held,
so a slow provider costs memory and nothing else. Whatever is lost on the way is found by its lease and sent again under
the same key.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import structlog

from libs.common.clock import now
from libs.common.database import TRANSIENT
from libs.common.errors import ConflictError, UnavailableError
from libs.common.messaging.decision import Aggregate, Message
from libs.common.messaging.shell import Failure, Shell
from libs.common.telemetry import Counter, Gauge, Histogram, Span, bound, call_span
from services.payments.domain.operation import (
    CALL_SECONDS,
    CLAIMED_LEASE,
    Operation,
    OperationKind,
    conclude,
    wants_reading,
)
from services.payments.domain.outcome import Outcome, Unknown, name_of
from services.payments.handlers.payments import Call, RecordOutcome
from services.payments.repository import payments as repository

if TYPE_CHECKING:
    from libs.common.messaging.worker import Worker
    from services.payments.gateway.protocol import PaymentGateway

IN_FLIGHT = 100
"""Calls at once. Together with the provider's latency this bounds the throughput, and connections do not."""
MAX_RECORDED = 500
RECOVERY_SECONDS = 1.0
BACKLOG_SECONDS = 0.05
DRAIN_SECONDS = 4
READ = "retrieve"
AWAY: tuple[type[BaseException], ...] = (UnavailableError, *TRANSIENT)
"""The database does not answer just now."""

CALLS = Counter("cartwright_provider_calls_total", "Calls to the payment provider", ["kind", "outcome"])
CALL_DURATION = Histogram("cartwright_provider_call_seconds", "From sending to the answer", ["kind"])
CALLS_IN_FLIGHT = Gauge("cartwright_provider_calls_in_flight", "Calls that have no answer yet")
OPEN_COUNT = Gauge("cartwright_provider_operations_open", "Operations whose outcome is not recorded")
OPEN_SECONDS = Gauge("cartwright_provider_operations_oldest_seconds", "Age of the oldest of them")
TAKEN_UP = Counter(
    "cartwright_provider_operations_taken_up_total", "Operations that nobody had any more, or whose turn came late"
)
LATE = Counter("cartwright_provider_outcomes_late_total", "Outcomes that came after somebody else's, and were ignored")

log = structlog.get_logger(__name__)


async def operate(worker: "Worker") -> None:
    """Carry out provider operations for as long as the worker lives, then leave none half done that can be finished."""
    from services.payments.gateway.stripe import StripeGateway

    settings = worker.settings
    gateway = StripeGateway(settings.stripe_api_key.get_secret_value(), settings.stripe_api_base, timeout_seconds=CALL_SECONDS)
    executor = Executor(worker.shell, gateway)
    worker.shell.after_commit.append(executor.committed)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(executor.record(), name="recorder")
            group.create_task(executor.recover(), name="recovery")
    finally:
        await executor.drain()
        await gateway.close()


class Executor:
    """Calls the provider for the operations of one process, so many at once, and records what it answered."""

    def __init__(self, shell: Shell, gateway: "PaymentGateway", *, in_flight: int = IN_FLIGHT) -> None:
        self._shell = shell
        self._gateway = gateway
        self._in_flight = in_flight
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
        """Take up what has just been planned here: the plan itself says that it is ours for a while."""
        for state in changed:
            if isinstance(state, Operation) and state.version == 1:
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
        if not self._draining:
            self._start()

    # --- Calling --------------------------------------------------------------------------------------------------

    async def _call(self, operation: Operation) -> None:
        """Carry it out as a task of its own, whose log lines are about this operation and not about what made room for it."""
        with bound(operation.traceparent, tenant_id=str(operation.tenant_id), operation_id=str(operation.id)):
            await self._carry_out(operation)

    async def _carry_out(self, operation: Operation) -> None:
        if not operation.is_held(now()):
            self._overdue.append(operation)
            return
        calls: list[Call] = []
        outcome = await self._send(operation, calls)
        if wants_reading(operation, outcome):
            outcome = conclude(operation.kind, outcome, await self._read(operation, calls))
        command = RecordOutcome(
            payment_id=operation.payment_id,
            operation_id=operation.id,
            tries=operation.tries,
            outcome=outcome,
            calls=tuple(calls),
        )
        self._outcomes.append(
            Message(
                data=command,
                tenant_id=operation.tenant_id,
                id=f"{operation.id}:{operation.tries}",
                time=now(),
                source=self._shell.source,
                actor=self._shell.source,
                traceparent=operation.traceparent,
            )
        )
        self._recordable.set()

    async def _send(self, operation: Operation, calls: list[Call]) -> Outcome:
        if not operation.may_send(now()):
            log.error("operation.too_old", operation_id=str(operation.id), action="read only; a person must resolve it")
            return Unknown("the key is too old to be sent again")
        return await _timed(operation, operation.kind, self._request(operation), calls)

    async def _read(self, operation: Operation, calls: list[Call]) -> Outcome:
        if operation.intent_id is None or not operation.is_held(now()):
            return Unknown("no time was left to read it")
        return await _timed(operation, READ, self._gateway.retrieve_intent(operation.intent_id), calls)

    def _request(self, operation: Operation) -> Awaitable[Outcome]:
        """The call, with exactly the parameters that were recorded."""
        key, parameters = operation.idempotency_key, operation.request
        match operation.kind:
            case OperationKind.CREATE:
                return self._gateway.create_intent(key, **parameters)
            case OperationKind.CONFIRM:
                return self._gateway.confirm_intent(key, **parameters)
            case OperationKind.CAPTURE:
                return self._gateway.capture_intent(key, **parameters)
            case OperationKind.CANCEL:
                return self._gateway.cancel_intent(key, **parameters)

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
            await self._record(batch)
            del self._outcomes[: len(batch)]
            for message in batch:
                self._held.pop(message.data.operation_id, None)

    async def _record(self, batch: Sequence[Message[RecordOutcome]]) -> None:
        """One transaction, tried until the database is back; what it refuses for good is singled out."""
        while True:
            try:
                answers = await self._shell.execute_many(batch)
            except AWAY as error:
                log.warning("outcomes.waiting", error=str(error), outcomes=len(batch), action="recording again in a second")
                await asyncio.sleep(1)
            except (asyncpg.PostgresError, ConflictError) as error:
                if len(batch) == 1:
                    _not_recorded(batch[0], error)
                    return
                await self._record(batch[: len(batch) // 2])
                await self._record(batch[len(batch) // 2 :])
                return
            else:
                for message, answer in zip(batch, answers, strict=True):
                    _note(message, answer)
                return

    # --- Recovering -----------------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Take up operations that nobody has any more, at once and then every second."""
        while True:
            took = 0
            try:
                took = await self._take_up_due()
            except AWAY as error:
                log.warning("recovery.waiting", error=str(error), action="trying again in a second")
            await asyncio.sleep(BACKLOG_SECONDS if took else RECOVERY_SECONDS)

    async def _take_up_due(self) -> int:
        database, own = self._shell.database, self._overdue[: self._in_flight]
        room = self._in_flight - len(self._held) + len(own)
        async with database.acquire() as connection:
            count, oldest_seconds = await repository.open_operations(connection)
            due = await repository.due_operations(connection, room + len(self._held)) if room > 0 else []
        OPEN_COUNT.set(count)
        OPEN_SECONDS.set(oldest_seconds)
        others = [(tenant_id, key) for tenant_id, key in due if key not in self._held]
        if not others and not own:
            return 0
        tenant_ids = {tenant_id for tenant_id, _ in others} | {operation.tenant_id for operation in own}
        async with database.transaction(tenant_ids) as connection:
            claimed = await repository.claim_operations(connection, others, own, CLAIMED_LEASE)
        del self._overdue[: len(own)]
        for operation in own:
            self._held.pop(operation.id, None)
        for operation in claimed:
            TAKEN_UP.inc()
            self._take(operation)
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
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._record_waiting()
                await self._give_back(list(self._held.values()))
        except AWAY as error:
            log.warning("drain.incomplete", error=str(error), action="whoever comes next waits for the leases to end")

    async def _give_back(self, operations: Sequence[Operation]) -> None:
        if operations:
            async with self._shell.database.transaction({each.tenant_id for each in operations}) as connection:
                await repository.give_back_operations(connection, operations)


async def _timed(operation: Operation, kind: str, call: Awaitable[Outcome], calls: list[Call]) -> Outcome:
    """Make a call and measure it. Whatever else it may raise, the provider may have acted."""
    started = time.perf_counter()
    with CALLS_IN_FLIGHT.track_inprogress(), _span(operation, kind) as span:
        try:
            outcome = await call
        except Exception as error:
            log.exception("provider.call_failed", kind=kind, action="its outcome is unknown")
            outcome = Unknown(type(error).__name__)
        span.note("cartwright.provider.outcome", name_of(outcome))
        if isinstance(outcome, Unknown):
            span.fail(name_of(outcome))
    seconds = time.perf_counter() - started
    CALLS.labels(kind, name_of(outcome)).inc()
    CALL_DURATION.labels(kind).observe(seconds)
    calls.append(Call(kind=kind, outcome=name_of(outcome), duration_ms=round(seconds * 1000)))
    return outcome


def _span(operation: Operation, kind: str) -> Span:
    attributes: dict[str, str | int] = {
        "cartwright.tenant.id": str(operation.tenant_id),
        "cartwright.payment.id": str(operation.payment_id),
        "cartwright.operation.id": str(operation.id),
        "cartwright.operation.tries": operation.tries,
    }
    return call_span(f"provider {kind}", of="payment-provider", parent=operation.traceparent, attributes=attributes)


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
