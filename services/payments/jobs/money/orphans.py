"""Time in: money that was captured and belongs to no order goes back. Every capture ends in an order or in a refund."""

from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from libs.common.database import poll
from libs.common.messaging.shell import Failure, Shell
from libs.common.telemetry import Counter, Gauge
from services.payments.handlers.refunds import RefundOrphan
from services.payments.repository.money.refunds import orphan_age, orphan_money

if TYPE_CHECKING:
    from libs.common.processes.parts import Worker

LOOK_SECONDS = 15.0
AT_ONCE = 100
ORPHAN_COUNT = Gauge(
    "cartwright_orphan_money_payments", "Captured payments that belong to no order, and are not on their way back"
)
ORPHAN_SECONDS = Gauge("cartwright_orphan_money_oldest_seconds", "Age of the oldest of them, from its capture")
RETURNED = Counter("cartwright_orphan_money_refunded_total", "Refunds of money that belonged to no order")

log = structlog.get_logger(__name__)


async def return_orphans(worker: "Worker") -> None:
    """Look for such money for as long as the worker lives. Any number of workers may: each decides on the row as it is."""
    older_than = timedelta(seconds=worker.settings.orphan_money_seconds)
    await poll(lambda: give_back(worker.shell, older_than), every=LOOK_SECONDS, waiting="orphan_money.waiting")


async def give_back(shell: Shell, older_than: timedelta) -> int:
    """Plan a refund of what was captured longer ago than that; answers how many. The gauges tell of all there is."""
    async with shell.database.acquire() as connection:
        count, oldest_seconds = await orphan_age(connection)
        found = await orphan_money(connection, older_than, AT_ONCE) if count else []
    ORPHAN_COUNT.set(count)
    ORPHAN_SECONDS.set(oldest_seconds)
    if not found:
        return 0
    commands = [shell.command(RefundOrphan(payment_id=payment_id), tenant_id) for tenant_id, payment_id in found]
    returned = 0
    for command, answer in zip(commands, await shell.execute_each(commands), strict=True):
        if isinstance(answer, Failure):
            log.error("orphan_money.not_returned", payment_id=str(command.data.payment_id), error=str(answer.error))
        elif answer:
            returned += 1
            log.warning("orphan_money.returned", payment_id=str(command.data.payment_id), action="a refund is planned")
    RETURNED.inc(returned)
    return returned
