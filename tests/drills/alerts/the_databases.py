"""What is wrong with databases and clocks. It is the last that is broken: what was put back lacks what others know."""

from collections.abc import AsyncIterator
from typing import Final

from tests.drills.alerts.scene import Blanks, Scene, situation
from tests.shared.clocks import wrong_by
from tests.shared.verbs import paid

_OTHERS: Final = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'cart' AND pid <> pg_backend_pid()"""


@situation("wrong-clock", "CartwrightClockApart")
async def _a_clock_is_wrong(scene: Scene) -> AsyncIterator[Blanks]:
    async with scene.otherwise("cart.worker", wrong_by(300)):
        yield {}


@situation("", "CartwrightDatabaseRestored")
async def _a_database_comes_back_as_it_was(scene: Scene) -> AsyncIterator[Blanks]:
    async with scene.database("postgres") as server:

        async def put(copy: str, source: str) -> None:
            async with scene.stopped("cart.worker", "cart.api"):
                await server.execute(f"DROP DATABASE IF EXISTS {copy} WITH (FORCE)")
                await server.execute(_OTHERS)
                await server.execute(f"CREATE DATABASE {copy} TEMPLATE {source}")

        await put("as_it_was", "cart")
        for number in range(3):
            await paid(scene.market, f"soon-lost-{number}")
        await put("cart", "as_it_was")
    await paid(scene.market, "news")
    yield {}
