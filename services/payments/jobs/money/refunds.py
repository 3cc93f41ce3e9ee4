"""Time in: refunds that nothing was heard of are looked into: read at the provider, or their lost call planned again."""

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import structlog

from libs.common.database import PASSING, poll
from libs.common.errors import CartwrightError
from libs.common.messaging.shell import Shell
from libs.common.sealing import SealError
from libs.common.telemetry import Counter
from services.payments.domain.money.refund import ASKING, Refund
from services.payments.domain.provider.outcome import SeenRefund, as_kept, name_of
from services.payments.gateway.accounts import Access
from services.payments.handlers.refunds import ObserveRefund, ReviveRefund
from services.payments.jobs.provider.calling import GatewayOf
from services.payments.repository.money.refunds import claim_refunds, due_refunds

if TYPE_CHECKING:
    from libs.common.processes.parts import Worker

LOOK_SECONDS = 5.0
AT_ONCE = 20
REFUSED: tuple[type[Exception], ...] = (CartwrightError, SealError, asyncpg.PostgresError, *PASSING)
"""It is left as it is, and due again."""

LOOKED_INTO = Counter("cartwright_refunds_looked_into_total", "Refunds looked into because nothing was heard", ["came_to"])

log = structlog.get_logger(__name__)


async def watch_refunds(worker: "Worker") -> None:
    """Look into what is due, for as long as the worker lives. Whatever fails is due again, by its own ladder."""

    async def look() -> bool:
        return await look_into_due(worker.shell, worker.shared(Access).gateways.of) == AT_ONCE

    await poll(look, every=LOOK_SECONDS, waiting="refunds.waiting")


async def look_into_due(shell: Shell, gateway_of: GatewayOf) -> int:
    """Take up what is due and look into each; answers how many there were. No connection is held meanwhile."""
    async with shell.database.acquire() as connection:
        due = await due_refunds(connection, AT_ONCE)
    if not due:
        return 0
    async with shell.database.transaction({tenant_id for tenant_id, _ in due}) as connection:
        claimed = await claim_refunds(connection, due)
    for came_to in await asyncio.gather(*(_look_into(shell, gateway_of, refund) for refund in claimed)):
        LOOKED_INTO.labels(came_to).inc()
    return len(claimed)


async def _look_into(shell: Shell, gateway_of: GatewayOf, refund: Refund) -> str:
    """One word for what it came to."""
    try:
        if refund.state in ASKING:
            command = ReviveRefund(payment_id=refund.payment_id, refund_id=refund.id)
            revived = await shell.execute(shell.command(command, refund.tenant_id))
            return "revived" if revived else "underway"
        gateway = await gateway_of(refund.tenant_id)
        seen = as_kept(await gateway.retrieve_refund(refund.provider_id or ""))
        if not isinstance(seen, SeenRefund):
            log.info("refund.not_read", refund_id=str(refund.id), outcome=name_of(seen), action="reading it again later")
            return name_of(seen)
        moved = await shell.execute(shell.command(ObserveRefund(payment_id=refund.payment_id, seen=seen), refund.tenant_id))
    except REFUSED as error:
        log.warning("refund.not_looked_into", refund_id=str(refund.id), error=str(error), action="looking into it again later")
        return "failed"
    return "moved" if moved else "unchanged"
