"""Time in: money that was captured and of whose order nothing is heard. Every capture ends in an order or in a refund.

Nothing is concluded from silence: checkout is asked, again and again, and its answer decides (`take_order_status`).
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from libs.common.database import poll
from libs.common.decision import Aggregate
from libs.common.messaging.shell import Failure, Shell
from libs.common.telemetry import Counter, Gauge
from services.payments.domain.money.refund import Refund
from services.payments.domain.money.refund_asking import ORPHANED
from services.payments.handlers.refunds import AskForOrder
from services.payments.repository.money.refunds import orphan_age, orphan_money

if TYPE_CHECKING:
    from libs.common.processes.parts import Worker

LOOK_SECONDS = 15.0
AT_ONCE = 100
ORPHAN_COUNT = Gauge(
    "cartwright_orphan_money_payments", "Captured payments that belong to no order, and are not on their way back"
)
ORPHAN_SECONDS = Gauge("cartwright_orphan_money_oldest_seconds", "Age of the oldest of them, from its capture")
ASKED = Counter(
    "cartwright_orphan_money_asked_total", "Questions to checkout for the order of captured money of which none was heard"
)
RETURNED = Counter("cartwright_orphan_money_refunded_total", "Refunds of money that belonged to no order")

log = structlog.get_logger(__name__)


async def return_orphans(worker: "Worker") -> None:
    """Look for such money for as long as the worker lives. Any number of workers may: each decides on the row as it is."""
    worker.shell.after_commit.append(_count_returned)
    older_than = timedelta(seconds=worker.settings.orphan_money_seconds)
    await poll(lambda: ask_for_orders(worker.shell, older_than), every=LOOK_SECONDS, waiting="orphan_money.waiting")


def _count_returned(changed: Sequence[Aggregate]) -> None:
    """What checkout's answers have led to."""
    RETURNED.inc(sum(isinstance(each, Refund) and each.version == 1 and each.reason == ORPHANED for each in changed))


async def ask_for_orders(shell: Shell, older_than: timedelta) -> int:
    """Ask for the orders of what was captured longer ago than that, and not asked for since; answers how many.

    The gauges tell of all there is.
    """
    async with shell.database.acquire() as connection:
        count, oldest_seconds = await orphan_age(connection)
        found = await orphan_money(connection, older_than, AT_ONCE) if count else []
    ORPHAN_COUNT.set(count)
    ORPHAN_SECONDS.set(oldest_seconds)
    if not found:
        return 0
    commands = [shell.command(AskForOrder(payment_id=payment_id), tenant_id) for tenant_id, payment_id in found]
    asked = 0
    for command, answer in zip(commands, await shell.execute_each(commands), strict=True):
        payment_id = str(command.data.payment_id)
        if isinstance(answer, Failure):
            log.error("orphan_money.not_asked", payment_id=payment_id, error=str(answer.error))
        elif answer:
            asked += 1
            log.warning("orphan_money.asked", payment_id=payment_id, action="checkout is asked for its order; nothing goes back")
    ASKED.inc(asked)
    return asked
