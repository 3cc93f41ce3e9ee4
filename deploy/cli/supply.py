"""Puts a shop's products on sale: published as the catalogue and inventory systems would, awaited as a shop would."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from deploy.cli.errors import CommandError
from deploy.cli.publisher import Fact, publishing
from deploy.cli.shop import Shop
from deploy.cli.waiting import asked_again

DELIVERY: Final = 1_000_000
"""How many of a SKU come at once. Always the same, so that the stock alone tells how many deliveries there were."""

LOCATION: Final = "warehouse"
_CATALOGUE: Final = "/example/catalogue"
_INVENTORY: Final = "/example/inventory"
_PATIENCE_SECONDS: Final = 60
_POLL_SECONDS: Final = 0.3


@dataclass(frozen=True, slots=True)
class Offer:
    """A product for sale at one price, and how many of it will be wanted."""

    sku: str
    name: str
    category: str
    unit_minor: int
    wanted: int


def catalogue_facts(tenant_id: UUID, currency: str, offer: Offer, shown: Mapping[str, Any] | None) -> Iterator[Fact]:
    """What the catalogue has to say until the shop shows this offer; nothing when it already does."""
    if shown and shown.get("unit_minor") == offer.unit_minor and not shown["withdrawn"]:
        return
    last = shown["sequence"] if shown else 0
    product = {"name": offer.name, "category": offer.category}
    price = {"currency": currency, "unit_minor": offer.unit_minor}
    yield Fact("catalog.v1", "product.published", _CATALOGUE, tenant_id, offer.sku, last + 1, product)
    yield Fact("catalog.v1", "price.changed", _CATALOGUE, tenant_id, offer.sku, last + 2, price)


def inventory_facts(tenant_id: UUID, offer: Offer, level: Mapping[str, Any] | None) -> Iterator[Fact]:
    """The count that opens a SKU's stock, and as many deliveries as it takes until there is enough on hand.

    A SKU that is known is never counted again: a count says what lies on the shelf now, and sales are going on.
    """
    on_hand = level["on_hand"] if level else 0
    delivered = (on_hand + level["reserved"] + level["sold"]) // DELIVERY if level else 0
    missing = -(-max(offer.wanted - on_hand, 0) // DELIVERY)
    for sequence in range(delivered + 1, delivered + missing + 1):
        if sequence == 1:
            count = {"location": LOCATION, "quantity": DELIVERY}
            yield Fact("inventory.v1", "stock.counted", _INVENTORY, tenant_id, offer.sku, 1, count)
        else:
            delivery = {"location": LOCATION, "delta": DELIVERY, "reason": "delivery"}
            yield Fact("inventory.v1", "stock.adjusted", _INVENTORY, tenant_id, offer.sku, sequence, delivery)


async def supply(shop: Shop, currency: str, offers: Sequence[Offer], say: Callable[[str], None]) -> None:
    """Publish what the shop does not show yet, and return once it is there to be bought."""
    products, levels = await asyncio.gather(_by_sku(shop.products), _by_sku(shop.stock))
    facts: list[Fact] = []
    for offer in offers:
        facts += catalogue_facts(shop.tenant_id, currency, offer, products.get(offer.sku))
        facts += inventory_facts(shop.tenant_id, offer, levels.get(offer.sku))
    if not facts:
        return
    async with publishing(shop.api.stack) as publisher:
        count = await publisher.publish(fact.record() for fact in facts)
    say(f"{count} facts about {len(offers)} products published to catalog.v1 and inventory.v1")
    await asyncio.gather(
        _shown("products in cart", lambda: _unpriced(shop, offers)),
        _shown("stock in checkout", lambda: _unstocked(shop, offers)),
    )


async def _unpriced(shop: Shop, offers: Sequence[Offer]) -> list[str]:
    products = await _by_sku(shop.products)
    return [it.sku for it in offers if products.get(it.sku, {}).get("unit_minor") != it.unit_minor]


async def _unstocked(shop: Shop, offers: Sequence[Offer]) -> list[str]:
    levels = await _by_sku(shop.stock)
    return [it.sku for it in offers if levels.get(it.sku, {}).get("on_hand", 0) < it.wanted]


async def _shown(what: str, missing: Callable[[], Awaitable[list[str]]]) -> None:
    """Wait until nothing is missing."""
    left = await asked_again(missing, len, patience_seconds=_PATIENCE_SECONDS, pause_seconds=_POLL_SECONDS)
    if left:
        raise CommandError(f"{len(left)} {what} do not appear, among them {left[0]}: see ./cartwright logs")


async def _by_sku(items: Callable[[], Any]) -> dict[str, dict[str, Any]]:
    return {item["sku"]: item async for item in items()}
