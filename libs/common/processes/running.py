"""What both kinds of process do while they run: say whether they are ready, and end what is under way."""

import asyncio
from collections.abc import Sequence

from libs.common.database import Database
from libs.common.http.server import Check
from libs.common.revocations import Revocations


def database_ready(database: Database) -> Check:
    """Whether the database answers."""

    async def ready() -> str | None:
        try:
            async with asyncio.timeout(1), database.acquire() as connection:
                await connection.execute("SELECT 1")
        except Exception as error:  # noqa: BLE001 - whatever it is, we are not ready
            return f"database: {error}"
        return None

    return ready


def revocations_known(revocations: Revocations) -> str | None:
    """Why this process should not take part yet: it could not judge tokens of before it began."""
    return "it is not known yet what was revoked" if revocations.is_awaited else None


async def ended(tasks: Sequence["asyncio.Task[None]"]) -> None:
    """End what is still under way; how it ended is for whoever waits for it to say."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
