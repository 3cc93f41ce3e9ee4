"""Time in: refused cards are forgotten, once no window reaches back to them."""

from datetime import timedelta
from typing import TYPE_CHECKING

from libs.common.database import WHATEVER_IT_SAYS, poll
from services.checkout.repository.checkouts import forget_declines

if TYPE_CHECKING:
    from libs.common.processes.parts import Worker

KEPT = timedelta(hours=24)
LOOK_SECONDS = 60.0
AT_ONCE = 1_000


async def forget_refused_cards(worker: "Worker") -> None:
    """Forget the old ones for as long as the worker lives. Any number of workers may."""

    async def forget() -> bool:
        async with worker.shell.database.acquire() as connection:
            return await forget_declines(connection, KEPT, AT_ONCE) == AT_ONCE

    await poll(forget, every=LOOK_SECONDS, waiting="declines.waiting", outlives=WHATEVER_IT_SAYS)
