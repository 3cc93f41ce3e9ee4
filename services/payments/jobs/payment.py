"""Time in: payments that nothing is heard of.

Where it is the payer's turn, or the end of a hold has come, the provider is read. Where it is ours, it is made sure that the
operation is still there; one that was lost is planned again under its key.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from libs.common.database import poll
from libs.common.decision import Message
from libs.common.messaging.shell import Failure, Shell
from libs.common.telemetry import Counter, Gauge
from services.payments.domain.provider.outcome import Declined, Outcome, Succeeded, Throttled, as_kept, name_of
from services.payments.gateway.accounts import Access
from services.payments.handlers.observations import Look, LookAtPayment, ObserveIntent
from services.payments.jobs.provider.calling import GatewayOf
from services.payments.repository.payment import count_watched, due_payments
from services.payments.repository.reviews import count_reviews

if TYPE_CHECKING:
    from libs.common.processes.parts import Worker

LOOK_SECONDS = 1.0
AT_ONCE = 50
"""Payments looked at with one transaction, and read side by side."""
COUNT_SECONDS = 15.0

LOOKED_AT = Counter("cartwright_payments_looked_at_total", "Payments looked at because nothing was heard", ["came_to"])
UNKNOWN_COUNT = Gauge("cartwright_payment_outcomes_unknown", "Provider operations whose outcome nobody knows")
UNKNOWN_SECONDS = Gauge("cartwright_payment_outcomes_unknown_oldest_seconds", "Since when the oldest of them was first sent")
QUEUED_COUNT = Gauge("cartwright_payment_outcomes_queued", "Those of them that a person must look into")
CHALLENGED_COUNT = Gauge("cartwright_payments_requiring_action", "Payments that wait for their payer")
REVIEW_COUNT = Gauge("cartwright_payment_reviews", "What waits for a person, over all tenants", ["kind"])

log = structlog.get_logger(__name__)


async def watch_payments(worker: "Worker") -> None:
    """Look at what is due, for as long as the worker lives. Whatever fails is due again, by its own ladder."""

    async def look() -> bool:
        return await look_at_due(worker.shell, worker.shared(Access).gateways.of) == AT_ONCE

    await poll(look, every=LOOK_SECONDS, waiting="payments.waiting")


async def count_payments(worker: "Worker") -> None:
    """Keep the gauges of what an operator watches; while the database is away they stay as they were."""

    async def count() -> None:
        async with worker.shell.database.acquire() as connection:
            watched = await count_watched(connection)
            reviews = await count_reviews(connection)
        UNKNOWN_COUNT.set(watched.unknown_count)
        UNKNOWN_SECONDS.set(watched.oldest_unknown_seconds)
        QUEUED_COUNT.set(watched.queued_count)
        CHALLENGED_COUNT.set(watched.challenged_count)
        for kind, waiting in reviews.items():
            REVIEW_COUNT.labels(kind).set(waiting)

    await poll(count, every=COUNT_SECONDS, waiting="payments.not_counted")


async def look_at_due(shell: Shell, gateway_of: GatewayOf) -> int:
    """Look at what is due; answers how many there were. No connection is held while the provider is read."""
    async with shell.database.acquire() as connection:
        due = await due_payments(connection, AT_ONCE)
    if not due:
        return 0
    looks = [shell.command(LookAtPayment(payment_id=key), tenant_id) for tenant_id, key in due]
    answers = await shell.execute_each(looks)
    readings = [
        _read(gateway_of, tenant_id, payment_id, intent_id)
        for (tenant_id, payment_id), intent_id in zip(due, map(_to_read, answers), strict=True)
        if intent_id is not None
    ]
    seen = [(tenant_id, found) for tenant_id, found in await asyncio.gather(*readings) if found is not None]
    if seen:
        observations = [shell.command(found, tenant_id) for tenant_id, found in seen]
        _say_failures(await shell.execute_each(observations), observations)
    return len(due)


def _to_read(answer: Any) -> str | None:
    """The provider's id of what is to be read after a look, if anything is."""
    if isinstance(answer, Failure):
        log.error("payment.not_looked_at", error=f"{type(answer.error).__name__}: {answer.error}")
        LOOKED_AT.labels("failed").inc()
        return None
    look, intent_id = answer
    LOOKED_AT.labels(look).inc()
    return intent_id if look is Look.READ else None


async def _read(gateway_of: GatewayOf, tenant_id: UUID, payment_id: UUID, intent_id: str) -> tuple[UUID, ObserveIntent | None]:
    outcome: Outcome
    try:
        outcome = as_kept(await (await gateway_of(tenant_id)).retrieve_intent(intent_id))
    except Exception as error:  # noqa: BLE001 - an account that cannot be read, whatever the reason
        log.warning("provider.no_account", error=f"{type(error).__name__}: {error}", action="looking again later")
        outcome = Throttled(None)
    if isinstance(outcome, Succeeded | Declined):
        return tenant_id, ObserveIntent(payment_id=payment_id, seen=outcome)
    log.info("payment.not_read", payment_id=str(payment_id), outcome=name_of(outcome), action="looking again later")
    return tenant_id, None


def _say_failures(answers: Sequence[Any], observations: Sequence[Message[Any]]) -> None:
    for answer, observation in zip(answers, observations, strict=True):
        if isinstance(answer, Failure):
            log.error(
                "payment.not_observed",
                payment_id=str(observation.data.payment_id),
                error=f"{type(answer.error).__name__}: {answer.error}",
                action="looking again later",
            )
