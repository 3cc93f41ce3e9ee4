"""A running stack with a shop in it, and what a test asks of both."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.cli.api import Api, connected
from deploy.cli.publisher import Fact, publishing
from deploy.cli.shop import Shop, Shopper
from deploy.cli.supply import Offer, supply
from deploy.cli.tenants import Wish, onboarded
from deploy.local.stack import Stack
from tests.shared.places import MIGRATED, Templates

OFFERS = [Offer(f"SKU-{number}", f"Product {number}", "things", 100 + number, 1_000) for number in range(5)]


@dataclass
class Market:
    """A running stack and one tenant's shop in it."""

    stack: Stack
    api: Api
    shop: Shop

    async def cart(self, shopper: Shopper, lines: dict[str, int]) -> str:
        """A cart with these lines."""
        cart_id = await shopper.new_cart()
        for sku, quantity in lines.items():
            await shopper.put_line(cart_id, sku, quantity)
        return cart_id

    async def charges(self, checkout_id: str) -> list[dict[str, Any]]:
        """Everything the provider did for a checkout, by the provider's own word."""
        return [intent async for intent in self.api.provider_intents() if intent["metadata"].get("checkout_id") == checkout_id]

    async def all_charges(self) -> dict[str, list[dict[str, Any]]]:
        """What the provider did for each checkout of this tenant."""
        charges: dict[str, list[dict[str, Any]]] = {}
        async for intent in self.api.provider_intents():
            if intent["metadata"].get("tenant_id") == str(self.shop.tenant_id):
                charges.setdefault(intent["metadata"]["checkout_id"], []).append(intent)
        return charges

    async def another_shop(self, slug: str) -> Shop:
        """Another tenant's shop on the same stack."""
        return await shop_at(self.api, slug)

    async def stock_of(self, sku: str, quantity: int, unit_minor: int = 250) -> None:
        """Put a product on sale of which there are exactly so many."""
        tenant = self.shop.tenant_id
        facts = [
            Fact("catalog.v1", "product.published", "/test/catalogue", tenant, sku, 1, {"name": sku, "category": "scarce"}),
            Fact("catalog.v1", "price.changed", "/test/catalogue", tenant, sku, 2, {"currency": "GBP", "unit_minor": unit_minor}),
            Fact("inventory.v1", "stock.counted", "/test/inventory", tenant, sku, 1, {"location": "shop", "quantity": quantity}),
        ]
        async with publishing(self.api.stack) as publisher:
            await publisher.publish(fact.record() for fact in facts)
        await self.until(lambda: self._is_on_sale(sku, unit_minor))

    async def reprice(self, sku: str, unit_minor: int, *, sequence: int) -> None:
        """Have a product cost something else from now on."""
        price = {"currency": "GBP", "unit_minor": unit_minor}
        fact = Fact("catalog.v1", "price.changed", "/test/catalogue", self.shop.tenant_id, sku, sequence, price)
        async with publishing(self.api.stack) as publisher:
            await publisher.publish([fact.record()])
        await self.until(lambda: self._is_on_sale(sku, unit_minor))

    async def _is_on_sale(self, sku: str, unit_minor: int) -> bool:
        priced = any([each["sku"] == sku and each.get("unit_minor") == unit_minor async for each in self.shop.products()])
        return priced and any([level["sku"] == sku async for level in self.shop.stock()])

    async def until(self, condition: Callable[[], Awaitable[bool]], seconds: float = 180) -> None:
        """Wait for what must come about."""
        async with asyncio.timeout(seconds):
            while not await condition():
                await asyncio.sleep(0.1)

    async def numbers_have_no_gaps_and_stock_is_conserved(self) -> None:
        """Every order has the next number, and every unit is somewhere, once."""
        numbers = sorted([order["number"] async for order in self.shop.orders()])
        assert numbers == list(range(1, len(numbers) + 1))
        levels = [level async for level in self.shop.stock()]
        assert {level["on_hand"] + level["reserved"] + level["sold"] for level in levels} == {1_000_000}
        assert {level["reserved"] for level in levels} == {0}

    async def level(self, sku: str) -> dict[str, Any]:
        """A product's stock."""
        return next(level for level in [each async for each in self.shop.stock()] if level["sku"] == sku)


async def shop_at(api: Api, slug: str) -> Shop:
    return (await onboarded(api, Wish.of(slug))).shop(api)


Standing = tuple[Stack, Api]
"""A stack that runs, and its public APIs."""


@asynccontextmanager
async def standing(
    templates: Templates, bootstrap_servers: str | None, prefix: str, home: Path, *, supervise: bool = False
) -> AsyncIterator[Standing]:
    """A stack of its own, with nothing in it: on the shared servers, or without their address on a broker of its own."""
    for service in MIGRATED:
        templates.copy(service, prefix)
    stack = Stack(
        home,
        database_prefix=prefix,
        topic_prefix=prefix if bootstrap_servers else "",
        postgres_admin_url=templates.admin_url,
        kafka_bootstrap=bootstrap_servers,
        supervise=supervise,
        say=print,
    )
    async with AsyncExitStack() as open_things:
        await open_things.enter_async_context(stack)
        yield stack, await open_things.enter_async_context(connected(stack.description(), connections=100))


@asynccontextmanager
async def market_on_a_cluster(home: Path) -> AsyncIterator[Market]:
    """A market on a cluster of its own."""
    stack = Stack(home, database_prefix="cluster_", kind="cluster", say=print)
    async with stack, connected(stack.description(), connections=100) as api:
        yield await market_in((stack, api))


async def market_in(where: Standing, slug: str = "market") -> Market:
    """A shop that has something to sell."""
    stack, api = where
    shop = await shop_at(api, slug)
    await supply(shop, "GBP", OFFERS, print)
    return Market(stack, api, shop)
