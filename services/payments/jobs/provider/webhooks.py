"""Time in: what the provider told us is taken up, and where it may be news, the object is read again and observed.

A notice is a hint. It may be late, early, doubled or lost, so nothing is concluded from what it says: at most that there is
nothing to look for. The same loop is the sweeper: it takes up whatever is stored and not settled, however it came to be.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, assert_never
from uuid import UUID

import structlog

from libs.common.database import PASSING, WHATEVER_IT_SAYS, poll
from libs.common.decision import Message
from libs.common.errors import CartwrightError
from libs.common.messaging.shell import Failure, Shell
from libs.common.sealing import SealError
from libs.common.telemetry import Counter, Gauge
from services.payments.domain.money.refund_recording import worth_of_refund
from services.payments.domain.payment.observing import worth_of_intent
from services.payments.domain.payment.payment import Payment
from services.payments.domain.provider.ladder import wait_after
from services.payments.domain.provider.outcome import (
    Declined,
    Outcome,
    Rejected,
    SeenDispute,
    SeenRefund,
    Succeeded,
    Throttled,
    Unknown,
    name_of,
)
from services.payments.domain.provider.webhook import (
    CALL_UNDER_WAY,
    Result,
    Subject,
    TakenNotice,
    Worth,
)
from services.payments.gateway.accounts import Access
from services.payments.handlers.disputes import ObserveDispute
from services.payments.handlers.observations import ObserveIntent
from services.payments.handlers.refunds import ObserveRefund
from services.payments.repository.provider.webhooks import (
    Known,
    Settled,
    due_notices,
    forget_notices,
    known_of,
    settle_notices,
    take_notices,
    waiting_notices,
)

if TYPE_CHECKING:
    from libs.common.processes.parts import Worker
    from services.payments.gateway.accounts import Gateways

AT_ONCE = 100
READS_AT_ONCE = 20
LEASE = timedelta(seconds=60)
"""How long those who took notices up have them: enough to read each object once, however slow the provider is."""
LOOK_SECONDS = 0.5
GAUGES_SECONDS = 10.0
NOT_READ: tuple[type[Exception], ...] = (CartwrightError, SealError, *PASSING)
NOTHING_SENT = wait_after(2)
"""Whoever was let ask nothing waits for the provider alone, however often: when it is back, so is the news of it."""
KEPT = timedelta(days=60)
FORGOTTEN_AT_ONCE = 1_000

WAITING = Gauge("cartwright_webhooks_waiting", "Webhooks that are stored and not settled")
OLDEST_SECONDS = Gauge("cartwright_webhooks_oldest_seconds", "Age of the oldest of them")
SETTLED = Counter("cartwright_webhooks_settled_total", "Webhooks taken up, by what became of them", ["result"])

Thing = tuple[UUID, Subject, str]
"""A tenant's object at the provider."""

log = structlog.get_logger(__name__)


async def settle_webhooks(worker: "Worker") -> None:
    """Settle what comes, for as long as the worker lives."""
    settler = Settler(worker.shell, worker.shared(Access).gateways)

    async def settle() -> bool:
        return await settler.settle_due() == AT_ONCE

    keep_at = partial(poll, waiting="webhooks.waiting", outlives=WHATEVER_IT_SAYS)
    async with asyncio.TaskGroup() as group:
        group.create_task(keep_at(settle, every=LOOK_SECONDS), name="settler")
        group.create_task(keep_at(settler.look_around, every=GAUGES_SECONDS), name="gauges of webhooks")


class Settler:
    """Takes notices up in batches, whosever they are."""

    def __init__(self, shell: Shell, gateways: "Gateways") -> None:
        self._shell = shell
        self._gateways = gateways
        self._reading = asyncio.Semaphore(READS_AT_ONCE)

    async def look_around(self) -> None:
        """Show what waits, and forget what was settled long ago."""
        async with self._shell.database.acquire() as connection:
            count, oldest_seconds = await waiting_notices(connection)
            await forget_notices(connection, KEPT, FORGOTTEN_AT_ONCE)
        WAITING.set(count)
        OLDEST_SECONDS.set(oldest_seconds)

    async def settle_due(self) -> int:
        """Take up what is due and settle it; answers how many there were. No connection is held while objects are read."""
        database = self._shell.database
        async with database.acquire() as connection:
            due = await due_notices(connection, AT_ONCE)
        if not due:
            return 0
        async with database.transaction({tenant_id for tenant_id, _ in due}) as connection:
            taken = await take_notices(connection, due)
            at_once, news = _sorted(taken, await known_of(connection, taken))
            # Most tell nothing new, and are settled here; a lease is for those whose object is to be read.
            await settle_notices(connection, [*at_once, *(Settled(notice, wait=LEASE) for notice, _ in news)], ends=True)
        _count(at_once)
        if news:
            await self._settle(await self._observe(news))
        return len(taken)

    async def _settle(self, settled: Sequence[Settled]) -> None:
        async with self._shell.database.transaction({each.notice.tenant_id for each in settled}) as connection:
            await settle_notices(connection, settled, ends=True)
        _count(settled)

    async def _observe(self, news: Sequence[tuple[TakenNotice, Payment]]) -> list[Settled]:
        """Read each object once, however many notices it has, and put what was seen to the payments in one transaction."""
        read = await self._read_all({_thing(notice) for notice, _ in news})
        commands: dict[Thing, Message[Any]] = {}
        for notice, payment in news:
            observation = _observation(payment.id, read[_thing(notice)])
            if observation is not None:
                commands[_thing(notice)] = self._shell.command(observation, notice.tenant_id, id=f"webhook:{notice.id}")
        answers = await self._shell.execute_each(list(commands.values())) if commands else []
        refused = {thing: answer for thing, answer in zip(commands, answers, strict=True) if isinstance(answer, Failure)}
        return [_settled(notice, read[_thing(notice)], refused.get(_thing(notice))) for notice, _ in news]

    async def _read_all(self, things: Iterable[Thing]) -> Mapping[Thing, "Outcome | SeenDispute"]:
        wanted = list(things)
        return dict(zip(wanted, await asyncio.gather(*map(self._read, wanted)), strict=True))

    async def _read(self, thing: Thing) -> "Outcome | SeenDispute":
        """Read one object as it is now. An account that cannot be read leaves it for later."""
        tenant_id, subject, object_id = thing
        async with self._reading:
            try:
                gateway = await self._gateways.of(tenant_id)
                match subject:
                    case Subject.INTENT:
                        return await gateway.retrieve_intent(object_id)
                    case Subject.REFUND:
                        return await gateway.retrieve_refund(object_id)
                    case Subject.DISPUTE:
                        return await gateway.retrieve_dispute(object_id)
                    case Subject.OTHER:
                        return Rejected("not-found", "nothing is read of it")
            except NOT_READ as error:
                log.warning("webhook.not_read", tenant_id=str(tenant_id), error=str(error), action="reading it again later")
                return Unknown(type(error).__name__)


def _count(settled: Iterable[Settled]) -> None:
    for each in settled:
        SETTLED.labels(each.result or "later").inc()


def _thing(notice: TakenNotice) -> Thing:
    return notice.tenant_id, notice.subject, notice.object_id


def _sorted(taken: Iterable[TakenNotice], known: Known) -> tuple[list[Settled], list[tuple[TakenNotice, Payment]]]:
    """What can be settled at once, and the notices whose payments' objects must be read."""
    at_once: list[Settled] = []
    news: list[tuple[TakenNotice, Payment]] = []
    for notice in taken:
        payment = known.payment(notice)
        settled = _without_reading(notice, payment, known)
        if settled is not None:
            at_once.append(settled)
        elif payment is not None:
            news.append((notice, payment))
    return at_once, news


def _without_reading(notice: TakenNotice, payment: Payment | None, known: Known) -> Settled | None:
    """What becomes of a notice as far as that can be said at once; None: its object must be read."""
    if payment is None:
        log.info("webhook.not_ours", tenant_id=str(notice.tenant_id), event_id=notice.id, object_id=notice.object_id)
        return Settled(notice, Result.NOT_OURS)
    match _worth(notice, payment, known):
        case Worth.NOTHING:
            return Settled(notice, Result.NOTHING_NEW)
        case Worth.LATER:
            return Settled(notice, wait=CALL_UNDER_WAY)
        case Worth.READ:
            return None


def _worth(notice: TakenNotice, payment: Payment, known: Known) -> Worth:
    match notice.subject:
        case Subject.INTENT:
            return worth_of_intent(notice, payment)
        case Subject.REFUND:
            return worth_of_refund(notice, known.refund(notice))
        case Subject.DISPUTE:
            return Worth.READ  # its money may have moved though its state has not
        case Subject.OTHER:
            return Worth.NOTHING


def _observation(payment_id: UUID, seen: "Outcome | SeenDispute") -> ObserveIntent | ObserveRefund | ObserveDispute | None:
    match seen:
        case Succeeded() | Declined():
            return ObserveIntent(payment_id=payment_id, seen=seen)
        case SeenRefund():
            return ObserveRefund(payment_id=payment_id, seen=seen)
        case SeenDispute():
            return ObserveDispute(payment_id=payment_id, seen=seen)
        case Rejected() | Unknown() | Throttled():
            return None
        case _:
            assert_never(seen)


def _settled(notice: TakenNotice, seen: "Outcome | SeenDispute", failure: Failure | None) -> Settled:
    """Settled once it was observed; whatever could not be read or taken in is due again, by the ladder."""
    if failure is not None:
        log.error(
            "webhook.not_observed",
            tenant_id=str(notice.tenant_id),
            event_id=notice.id,
            error=f"{type(failure.error).__name__}: {failure.error}",
            action="it stays stored and is taken up again",
        )
        return Settled(notice, wait=wait_after(notice.tries))
    match seen:
        case Succeeded() | Declined() | SeenRefund() | SeenDispute():
            return Settled(notice, Result.OBSERVED)
        case Rejected(code="not-found"):
            log.warning("webhook.object_gone", tenant_id=str(notice.tenant_id), event_id=notice.id, object_id=notice.object_id)
            return Settled(notice, Result.GONE)
        case Throttled(retry_after=seconds):
            return Settled(notice, wait=max(NOTHING_SENT, timedelta(seconds=seconds or 0)))
        case Rejected() | Unknown():
            log.info("webhook.not_read", event_id=notice.id, outcome=name_of(seen), action="reading it again later")
            return Settled(notice, wait=wait_after(notice.tries))
        case _:
            assert_never(seen)
