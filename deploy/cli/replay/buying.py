"""Buys invoices one by one, as their shoppers: a session, a cart, its lines, a checkout, and whatever it comes to.

Ids and keys follow from the invoice, so a second run, or a run after a crash, walks the same path and finds what is
already there.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID, uuid5

from deploy.cli.api import LONGEST_WAIT_SECONDS, RefusedError
from deploy.cli.replay.rows import Purchase
from deploy.cli.shop import FINAL_STATES, Shop, Shopper

CARD: Final = "pm_card_visa"
_ATTEMPTS: Final = 3
_OUTCOME_SECONDS: Final = 600
_REOPENING_SECONDS: Final = 0.5
_FINAL_REASONS: Final = frozenset({"payment-declined", "amount-mismatch", "canceled"})
"""Why a checkout failed for good. After any other reason the invoice is bought again under a new key."""


@dataclass(slots=True)
class Bought:
    """What became of the invoices of one run."""

    confirmed: dict[str, Purchase] = field(default_factory=dict)
    """By checkout id."""
    checkout_ids: set[str] = field(default_factory=set)
    """Every checkout there was, whatever its end: money may be looked for in all of them."""
    declined: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """Invoices that came to nothing else, by reason."""
    seconds: float = 0.0

    @property
    def total_minor(self) -> int:
        """What the bought invoices come to, by the file."""
        return sum(purchase.total_minor for purchase in self.confirmed.values())


async def buy_all(shop: Shop, purchases: Sequence[Purchase], concurrency: int, advance: Callable[[], None]) -> Bought:
    """Buy every invoice, in file order, with so many shoppers at once; `advance` is told of each that is done."""
    bought, waiting, shoppers = Bought(), iter(purchases), _Shoppers(shop)
    begun = time.monotonic()

    async def shop_on() -> None:
        for purchase in waiting:
            await _buy(shoppers, purchase, bought)
            advance()

    await _together(asyncio.create_task(shop_on()) for _ in range(concurrency))
    bought.seconds = time.monotonic() - begun
    return bought


class _Shoppers:
    """The shoppers of a run; a customer keeps one session for all invoices."""

    def __init__(self, shop: Shop) -> None:
        self.tenant_id = shop.tenant_id
        self._shop = shop
        self._customers: dict[int, Shopper] = {}

    def of(self, purchase: Purchase) -> Shopper:
        if purchase.customer is None:
            return self._shop.shopper(purchase.shopper_ref, guest=True)
        if purchase.customer not in self._customers:
            self._customers[purchase.customer] = self._shop.shopper(purchase.shopper_ref)
        return self._customers[purchase.customer]


async def _buy(shoppers: _Shoppers, purchase: Purchase, bought: Bought) -> None:
    try:
        checkout = await _last_checkout(shoppers, purchase, bought)
    except RefusedError as error:
        bought.failures[f"{purchase.number}: {error}"] += 1
        return
    reason = checkout.get("reason") or checkout["state"]
    if checkout["state"] == "confirmed":
        bought.confirmed[checkout["id"]] = purchase
    elif reason == "payment-declined":
        bought.declined += 1
    else:
        bought.failures[reason] += 1


async def _last_checkout(shoppers: _Shoppers, purchase: Purchase, bought: Bought) -> dict[str, Any]:
    """The checkout that decides the invoice: the first one, unless that ended for a reason that passes."""
    shopper, cart_id = shoppers.of(purchase), _cart_id(shoppers.tenant_id, purchase)
    lines = [{"sku": sku, "quantity": quantity} for sku, quantity in purchase.quantities.items()]
    await shopper.put_cart(cart_id)
    for attempt in range(1, _ATTEMPTS + 1):
        # A cart that is not open belongs to a checkout of an earlier run, which the next call finds.
        await shopper.put_lines(cart_id, lines)
        key = str(uuid5(cart_id, f"checkout:{attempt}"))
        checkout = await shopper.check_out(str(cart_id), key=key, method=CARD, wait_seconds=LONGEST_WAIT_SECONDS)
        if checkout["state"] not in FINAL_STATES:
            checkout = await shopper.outcome(checkout, patience_seconds=_OUTCOME_SECONDS)
        bought.checkout_ids.add(checkout["id"])
        if checkout["state"] in {"confirmed", "paying"} or checkout.get("reason") in _FINAL_REASONS:
            break
        await asyncio.sleep(_REOPENING_SECONDS)
    return checkout


def _cart_id(tenant_id: UUID, purchase: Purchase) -> UUID:
    return uuid5(tenant_id, f"invoice:{purchase.number}")


async def _together(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Await all the tasks; the first error ends the others too, and is the one that is told."""
    running = list(tasks)
    try:
        await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
