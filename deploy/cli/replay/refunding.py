"""Gives back what the cancellations say, order by order, and waits until every refund has an end.

A refund carries the cancellation's number as its reason, so a later run finds on the order what was already given back,
also when the keys of the first run are long forgotten.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID, uuid5

from deploy.cli.api import RefusedError
from deploy.cli.replay.cancellations import Refund
from deploy.cli.shop import Shop
from deploy.cli.waiting import asked_again

_PATIENCE_SECONDS: Final = 120
_FIRST_POLL_SECONDS: Final = 0.1
_LONGEST_POLL_SECONDS: Final = 2.0
_OPEN: Final = frozenset({"requested", "pending"})


@dataclass(slots=True)
class Refunded:
    """What our own orders say was given back."""

    by_order: dict[str, int] = field(default_factory=dict)
    """Minor units by order id."""
    new: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def total_minor(self) -> int:
        """All of it."""
        return sum(self.by_order.values())


async def refund_all(
    shop: Shop, orders: Mapping[str, str], refunds: Sequence[Refund], concurrency: int, advance: Callable[[], None]
) -> Refunded:
    """Give back each refund's lines of its order; `orders` are their ids by invoice number."""
    refunded, by_order = Refunded(), defaultdict(list)
    for refund in refunds:
        by_order[orders[refund.purchase.number]].append(refund)
    waiting = iter(by_order.items())

    async def give_back() -> None:
        for order_id, its in waiting:
            await _refund_order(shop, order_id, its, refunded)
            for _ in its:
                advance()

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(give_back())
    return refunded


async def _refund_order(shop: Shop, order_id: str, refunds: Sequence[Refund], refunded: Refunded) -> None:
    order = await shop.order(order_id)
    lines = {line["sku"]: line["line_id"] for line in order["lines"]}
    known = {refund["reason"] for refund in order["refunds"]}
    for refund in refunds:
        if refund.reason in known:
            continue
        quantities = {lines[sku]: quantity for sku, quantity in refund.quantities.items()}
        key = str(uuid5(UUID(order_id), refund.reason))
        try:
            await shop.refund(order_id, key=key, lines=quantities, reason=refund.reason)
        except RefusedError as error:
            refunded.failures[f"{refund.reason}: {error}"] += 1
        else:
            refunded.new += 1
    order = await _settled(shop, order_id)
    refunded.by_order[order_id] = order["refunded_minor"]
    for each in order["refunds"]:
        if each["state"] != "succeeded":
            refunded.failures[f"{each['reason']} is {each['state']}"] += 1


async def _settled(shop: Shop, order_id: str) -> dict[str, Any]:
    """The order once none of its refunds is under way, or as it stands when patience ends."""
    return await asked_again(
        lambda: shop.order(order_id),
        lambda order: any(refund["state"] in _OPEN for refund in order["refunds"]),
        patience_seconds=_PATIENCE_SECONDS,
        pause_seconds=_FIRST_POLL_SECONDS,
        longest_pause_seconds=_LONGEST_POLL_SECONDS,
    )
