"""The checkout service's edge and a worker beside it, every statement of the edge's written down."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx

from libs.common.auth import CLIENT, Verifier
from libs.common.contracts.cart import CartFrozen
from libs.common.database import Database
from libs.common.http.routes import Service
from libs.common.messaging.hints import Hints
from libs.common.messaging.shell import Shell
from libs.common.processes.api import api_app
from libs.common.shared import Shared
from services.checkout import repository
from services.checkout.api import ROUTES
from services.checkout.app import PARTS
from services.checkout.domain.saga import Checkout
from tests.shared.callers import ISSUER, JWK, SHARED, Person, count, message, onboard
from tests.shared.events import cart_frozen_for, frozen_line, payment_authorized, payment_captured
from tests.shared.judging import Judged
from tests.shared.places import Place
from tests.shared.roots import keys_of, none_revoked

PRICE = 250


class WatchedHints(Hints):
    """Hints of which one can see how many wait for them: whoever does has looked, and has nothing left to ask."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.waiting = 0

    async def comes(self, news: "asyncio.Future[None]", deadline: float) -> bool:
        self.waiting += 1
        try:
            return await super().comes(news, deadline)
        finally:
            self.waiting -= 1


@asynccontextmanager
async def process(place: Place) -> AsyncIterator[tuple[Shell, WatchedHints, list[str]]]:
    """What one process has: a pool, of one connection here, whose statements are written down, and hints of its own."""
    database = await Database.connect(place.url("app"), application="test", size=1)
    statements: list[str] = []
    async with database.acquire() as connection:
        connection.add_query_logger(lambda record: statements.append(record.query))
    hints = WatchedHints(place.url("app"))
    await hints.start()
    try:
        yield (
            PARTS.shell(database, hints, "api"),
            hints,
            statements,
        )
    finally:
        await hints.close()
        await database.close()


@dataclass
class Shop:
    """The checkout service's API, its worker's shell, and a tenant with tea to sell."""

    client: httpx.AsyncClient
    hints: WatchedHints
    worker: Shell
    tenant_id: UUID
    statements: list[str]
    shopper: Person
    staff: Person
    keys: int = field(default=0)

    async def ask(self, method: str, path: str, who: Person | None = None, **request: Any) -> httpx.Response:
        self.keys += 1
        headers = {"Idempotency-Key": f"key-{self.keys}", **(who or self.shopper).authorization, **request.pop("headers", {})}
        return await self.client.request(method, path, headers=headers, **request)

    async def until_someone_waits(self) -> int:
        """How many statements there were once somebody waits for news, and late hints of what was before have come."""
        seen = -1
        async with asyncio.timeout(120):
            while not self.hints.waiting or seen != len(self.statements):
                seen = len(self.statements)
                await asyncio.sleep(1)
        return seen

    async def start(self, wait: int = 0, **request: Any) -> httpx.Response:
        body = {"cart_id": str(uuid4()), "payment": {"method": "pm_card_visa"}, **request}
        return await self.ask("POST", "/v1/checkouts", json=body, headers={"Prefer": f"wait={wait}"})

    async def tell(self, *events: Any) -> None:
        for event in events:
            await self.worker.execute(message(event, self.tenant_id))

    async def checkout(self, checkout_id: str) -> Checkout:
        async with self.worker.database.transaction([self.tenant_id]) as connection:
            [found] = await repository.CHECKOUTS.load(connection, [(self.tenant_id, UUID(checkout_id))], lock=False)
        return found

    async def paying(self, **request: Any) -> Checkout:
        started = await self.checkout((await self.start(**request)).json()["id"])
        await self.tell(frozen(started, 2))
        return await self.checkout(str(started.id))

    async def ordered(self, *, is_captured: bool = True, **request: Any) -> Checkout:
        checkout = await self.paying(**request)
        await self.tell(payment_authorized(checkout), *([payment_captured(checkout)] if is_captured else []))
        return checkout


def frozen(checkout: Checkout, quantity: int) -> CartFrozen:
    return cart_frozen_for(checkout, frozen_line("tea", quantity, PRICE, name="Tea"))


@asynccontextmanager
async def shop_at(place: Place) -> AsyncIterator[Shop]:
    """What a process of each kind does for one tenant."""
    keys = keys_of(ISSUER, JWK)
    async with process(place) as (shell, hints, statements), process(place) as (worker, _, _):
        app = api_app("checkout", ROUTES)
        app.state.keys = keys
        app.state.service = Service("checkout", shell, hints, Verifier(keys, none_revoked(), issuer=ISSUER, audience="checkout"))
        app.state.service.shared = Shared(SHARED["checkout"](shell))
        tenant_id = await onboard(worker)
        await count(worker, tenant_id, "tea", 1_000)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(Judged(app, app)), base_url="http://service.test", timeout=60
        ) as client:
            yield Shop(client, hints, worker, tenant_id, statements, Person(tenant_id), Person(tenant_id, role=CLIENT))
