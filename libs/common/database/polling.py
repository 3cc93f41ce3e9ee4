"""Work that is done again and again for as long as a process lives, whatever becomes of the database meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import structlog

from libs.common.database.passing import PASSING

WHATEVER_IT_SAYS: tuple[type[Exception], ...] = (*PASSING, asyncpg.PostgresError)
"""For work that may go undone: a statement that the database refuses ends nothing but this round of it."""

log = structlog.get_logger(__name__)


async def poll(
    work: Callable[[], Awaitable[object]],
    *,
    every: float,
    waiting: str,
    outlives: tuple[type[Exception], ...] = PASSING,
    **about: str,
) -> None:
    """Do it for ever, so many seconds after it is done; at once if it answers True, for then there is more of it.

    While the database is away a line of the name `waiting` says so, with what it is `about`, and it is tried again as if
    there had been nothing.
    """
    while True:
        has_more: object = False
        try:
            has_more = await work()
        except outlives as error:
            log.warning(waiting, **about, error=str(error) or type(error).__name__, action=f"trying again in {every:g} s")
        await asyncio.sleep(0 if has_more is True else every)
