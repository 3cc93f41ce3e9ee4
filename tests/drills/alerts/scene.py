"""What a situation is made in: a stack on servers of its own, with somebody who watches."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import aiohttp
import asyncpg

from deploy.cli.publisher import Fact, publishing
from deploy.local.processes import Child
from tests.shared.market import Market
from tests.shared.verbs import Said, cartwright
from tests.shared.watching import Watch

CHALLENGED = "pm_card_authenticationRequired"
VISA = "pm_card_visa"

Blanks = Mapping[str, str]
"""What is meant by the words of a runbook's commands that stand for something."""


@dataclass(frozen=True)
class Scene:
    """Where it is."""

    market: Market
    watch: Watch
    looks: Child
    """`invariants --watch`."""

    @asynccontextmanager
    async def database(self, service: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """A service's, as the administrator sees it."""
        connection = await asyncpg.connect(f"{self.market.stack.admin_url.rpartition('/')[0]}/{service}")
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def held(self, service: str, lock: str) -> AsyncIterator[None]:
        """A lock that somebody has taken, and does not give back."""
        async with self.database(service) as connection, connection.transaction():
            await connection.execute(lock)
            yield

    @asynccontextmanager
    async def stopped(self, *names: str) -> AsyncIterator[None]:
        """Without these processes."""
        for name in names:
            await self.market.stack.kill(name)
        try:
            yield
        finally:
            await asyncio.gather(*(self.market.stack.start_process(name) for name in names))

    @asynccontextmanager
    async def otherwise(self, name: str, environment: Mapping[str, str]) -> AsyncIterator[None]:
        """With this process begun anew, in another environment."""
        stack = self.market.stack
        child: Child = stack._parts[name]._child  # type: ignore[attr-defined]  # it is a HttpProcess
        usual = child.environment

        async def begin_anew(environment: Mapping[str, str]) -> None:
            await stack.stop_process(name)
            child.environment = dict(environment)
            await stack.start_process(name)

        await begin_anew({**usual, **environment})
        try:
            yield
        finally:
            await begin_anew(usual)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """With this process standing still, and its children if it is a broker."""
        pid = self.market.stack.pids()[name]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @asynccontextmanager
    async def faults(self, *rules: Mapping[str, Any]) -> AsyncIterator[None]:
        """With a provider that does this."""
        await self.market.stack.put_faults([*rules])
        try:
            yield
        finally:
            await self.market.stack.put_faults([])

    async def at_provider(self, path: str, **members: str) -> dict[str, Any]:
        """What the provider answers to its merchant (`/v1/…`), or to who plays the others (`/_control/…`)."""
        description = self.market.stack.description()
        asked: dict[str, Any] = {"data": members} if path.startswith("/v1/") else {"json": members}
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {description.stripe_api_key}"}) as session,
            session.post(f"{description.stripe_api_base}{path}", **asked) as answer,
        ):
            told: dict[str, Any] = await answer.json()
            assert answer.ok, told
        return told

    @asynccontextmanager
    async def again_and_again(self, ask: Callable[[], Awaitable[object]], pause: float = 0.05) -> AsyncIterator[None]:
        """While somebody does this, whatever comes of it."""

        async def go_on() -> None:
            while True:
                try:
                    await ask()
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    print(f"{type(error).__name__}: {error}")
                await asyncio.sleep(pause)

        task = asyncio.create_task(go_on())
        try:
            yield
        finally:
            task.cancel()

    async def begun(self, name: str, method: str = VISA, wait: int = 0) -> dict[str, Any]:
        """A checkout."""
        shopper = self.market.shop.shopper(f"customer:{name}")
        cart_id = await self.market.cart(shopper, {"SKU-1": 1})
        return await shopper.check_out(cart_id, key=f"begun-{cart_id}", method=method, wait_seconds=wait)

    async def publish(self, *facts: Fact) -> None:
        """What systems outside say."""
        async with publishing(self.market.api.stack) as publisher:
            await publisher.publish(fact.record() for fact in facts)

    def adjusted(self, sku: str, sequence: int) -> Fact:
        """A unit more of a product, as the shelf says."""
        content = {"location": "shop", "reason": "test", "delta": 1}
        return Fact("inventory.v1", "stock.adjusted", "/test/inventory", self.market.shop.tenant_id, sku, sequence, content)

    async def verb(self, *words: str) -> Said:
        """What an operator asks, as they would."""
        return await cartwright(self.market, *words)


@dataclass(frozen=True)
class Situation:
    """Something that is broken on purpose, what tells it, and the page that says what to do."""

    alerts: tuple[str, ...]
    page: str
    """Whose commands are run; none where another situation has run them."""
    happens: Callable[[Scene], AbstractAsyncContextManager[Blanks]]
    not_run: Mapping[str, str]
    """Commands of the page that are not run here, each by a part of it, and why."""


Happens = Callable[[Scene], AsyncIterator[Blanks]]
SITUATIONS: Final[dict[str, Situation]] = {}


def situation(page: str, *alerts: str, not_run: Mapping[str, str] = MappingProxyType({})) -> Callable[[Happens], Happens]:
    """It begins, is there at its `yield`, and is over after it."""

    def take(happens: Happens) -> Happens:
        SITUATIONS[happens.__name__.strip("_")] = Situation(alerts, page, asynccontextmanager(happens), not_run)
        return happens

    return take
