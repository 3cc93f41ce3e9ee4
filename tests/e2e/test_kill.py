"""kill -9 in the middle of fifty checkouts: whatever was acknowledged happens, once."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from deploy.cli.settlement import settled
from tests.e2e.conftest import Market

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHECKOUTS = 50


async def _purchase(market: Market, name: str, number: int) -> dict[str, Any]:
    shopper = market.shop.shopper(f"customer:{name}-{number}")
    cart_id = await market.cart(shopper, {f"SKU-{number % 5}": 1 + number % 3})
    started = await shopper.check_out(cart_id, key=f"{name}-{number}", method="pm_card_visa", wait_seconds=5)
    finished: dict[str, Any] = await shopper.outcome(started, patience_seconds=120)
    return finished


@pytest.mark.parametrize("victim", ["cart.worker", "checkout.worker", "payments.worker", "identity.worker", "checkout.api"])
async def test_fifty_checkouts_end_in_fifty_orders_with_one_charge_each_though(market: Market, victim: str) -> None:
    purchases = [asyncio.create_task(_purchase(market, victim, number)) for number in range(CHECKOUTS)]
    while not any(purchase.done() for purchase in purchases):
        await asyncio.sleep(0.01)
    await market.stack.kill(victim)
    unfinished = sum(not purchase.done() for purchase in purchases)
    await market.stack.start_process(victim)
    checkouts = await asyncio.gather(*purchases)
    assert unfinished > CHECKOUTS // 4
    assert Counter(checkout["state"] for checkout in checkouts) == {"confirmed": CHECKOUTS}
    ids = [checkout["id"] for checkout in checkouts]
    money = await settled(market.api, market.shop.tenant_id, ids, ids)
    charges = await market.all_charges()
    orders = Counter([order["checkout_id"] async for order in market.shop.orders()])
    assert [orders[checkout_id] for checkout_id in ids] == [1] * CHECKOUTS
    assert [len(charges[checkout_id]) for checkout_id in ids] == [1] * CHECKOUTS
    assert {checkout["id"]: [checkout["total_minor"]] for checkout in checkouts} == dict(money.captured)


async def test_order_numbers_have_no_gaps_and_stock_is_conserved(market: Market) -> None:
    numbers = sorted([order["number"] async for order in market.shop.orders()])
    assert numbers == list(range(1, len(numbers) + 1))
    levels = [level async for level in market.shop.stock()]
    assert {level["on_hand"] + level["reserved"] + level["sold"] for level in levels} == {1_000_000}
    assert {level["reserved"] for level in levels} == {0}
