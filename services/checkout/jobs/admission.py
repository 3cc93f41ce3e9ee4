"""Time in: whose turn it is in the queues of drops is let in, and places of long ago are forgotten.

Any number of workers may: each counts who has not come, and what another did meanwhile makes its count void.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from libs.common.clock import now
from libs.common.crowding import CROWDING
from libs.common.database import WHATEVER_IT_SAYS, poll
from libs.common.messaging.shell import Failure
from libs.common.telemetry import Gauge
from services.checkout.handlers.drops import LetIn
from services.checkout.repository import drops

if TYPE_CHECKING:
    from libs.common.messaging.shell import Shell
    from libs.common.processes.parts import Worker

LOOK_SECONDS = 1.0
FORGET_SECONDS = 60.0
KEPT = timedelta(days=31)
AT_ONCE = 1_000

WAITING: Final = Gauge("cartwright_drop_waiting", "Buyers who wait in the queues of drops")


async def let_in(worker: "Worker") -> None:
    """Look at every drop that somebody waits at, once a second."""

    async def once() -> bool:
        await let_in_once(worker.shell)
        return False

    await poll(once, every=LOOK_SECONDS, waiting="drops.waiting", outlives=WHATEVER_IT_SAYS)


async def let_in_once(shell: "Shell") -> int:
    """Let in whose turn it is, of all tenants; answers how many."""
    waiting = await drops.waiting(shell.database, now())
    WAITING.set(sum(each.waiting for each, _ in waiting))
    commands = [
        shell.command(
            LetIn(drop_id=each.id, served_number=each.served_number, unused=unused, crowded=CROWDING.share()), each.tenant_id
        )
        for each, unused in waiting
    ]
    answers = await shell.execute_each(commands) if commands else []
    return sum(0 if isinstance(answer, Failure) else answer for answer in answers)


async def forget_places(worker: "Worker") -> None:
    """Forget the old ones for as long as the worker lives."""

    async def forget() -> bool:
        async with worker.shell.database.acquire() as connection:
            return await drops.forget_places(connection, KEPT, AT_ONCE) == AT_ONCE

    await poll(forget, every=FORGET_SECONDS, waiting="drops.waiting", outlives=WHATEVER_IT_SAYS)
