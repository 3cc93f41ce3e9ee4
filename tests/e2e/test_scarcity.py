"""Everybody wants the same thing at once: what there is is sold to the last unit, and what there is not is not.

The short form has 30 units and 300 buyers; `--long` has 1,000 and 10,000.
"""

import asyncio
from collections import Counter
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from deploy.cli.settlement import settled
from deploy.cli.shop import FINAL_STATES, Shopper
from tests.shared.market import Market
from tests.shared.toy import seeded

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(3_000)]

AT_ONCE = 64
VISA = "pm_card_visa"
PRICE = 250
RACES = 12


async def test_of_a_scarce_product_every_unit_is_sold_once_and_everybody_else_is_refused_cleanly(
    market: Market, request: pytest.FixtureRequest
) -> None:
    units, buyers = (1_000, 10_000) if request.config.getoption("--long") else (30, 300)
    await market.stock_of("RUSH", units)
    room = asyncio.Semaphore(AT_ONCE)

    async def buy(number: int) -> dict[str, Any]:
        async with room:
            shopper = market.shop.shopper(f"customer:rush-{number}")
            cart_id = await market.cart(shopper, {"RUSH": 1})
            started = await shopper.check_out(cart_id, key=f"rush-{number}", method=VISA, wait_seconds=20)
            return await shopper.outcome(started, patience_seconds=240)

    ended = await asyncio.gather(*(buy(number) for number in range(buyers)))
    told = Counter((checkout["state"], checkout.get("reason")) for checkout in ended)
    assert told == {("confirmed", None): units, ("failed", "out-of-stock"): buyers - units}
    level = await market.level("RUSH")
    assert (level["on_hand"], level["reserved"], level["sold"]) == (0, 0, units)
    bought = {checkout["id"] for checkout in ended if checkout["state"] == "confirmed"}
    money = await settled(market.api, market.shop.tenant_id, {checkout["id"] for checkout in ended}, bought)
    assert money.pending == set()
    assert dict(money.captured) == {key: [PRICE] for key in bought}, "one charge each, and nobody else's money is held or taken"
    orders = Counter([order["checkout_id"] async for order in market.shop.orders()])
    assert orders == Counter(bought)


async def test_a_checkout_fired_ten_times_from_two_tabs_while_webhooks_and_its_timer_race_is_one_order_and_one_answer(
    market: Market, admin_url: str
) -> None:
    # Every event is told twice, and in no order.
    twice = [{"fault": "webhook_duplicate", "delay_ms": 5}, {"fault": "webhook_reorder", "delay_ms": 40}]
    await market.stack.put_faults(twice)
    chance = seeded(uuid4().int % 2**32)
    before = await market.level("SKU-2")
    database = await asyncpg.connect(admin_url.rpartition("/")[0] + "/" + market.stack._prefixes[0] + "checkout")
    ended = []
    for number in range(RACES):
        shopper = market.shop.shopper(f"customer:two-tabs-{number}")
        cart_id = await market.cart(shopper, {"SKU-2": 1})
        shots = [f"tab-{shot % 2}-{cart_id}" for shot in range(10)]
        begun = await asyncio.gather(*(shopper.check_out(cart_id, key=key, method=VISA, wait_seconds=0) for key in shots))
        assert len({checkout["id"] for checkout in begun}) == 1
        _, *answers = await asyncio.gather(
            _time_is_up(database, begun[0]["id"], chance.uniform(0, 0.1)), *(_fired(shopper, cart_id, key) for key in shots)
        )
        assert answers == [answers[0]] * len(answers)
        ended.append(answers[0])
    await database.close()
    await market.stack.put_faults([])
    outcomes = Counter((checkout["state"], checkout.get("reason")) for checkout in ended)
    print(dict(outcomes))
    assert outcomes.keys() <= {("confirmed", None), ("expired", "timed-out")}
    bought = [checkout["id"] for checkout in ended if checkout["state"] == "confirmed"]
    money = await settled(market.api, market.shop.tenant_id, [checkout["id"] for checkout in ended], bought)
    assert (dict(money.captured), money.pending) == ({key: [102] for key in bought}, set())
    charges = await market.all_charges()
    assert [len(charges[checkout_id]) for checkout_id in bought] == [1] * len(bought)
    orders = Counter([order["checkout_id"] async for order in market.shop.orders()])
    assert [orders[checkout["id"]] for checkout in ended] == [int(checkout["state"] == "confirmed") for checkout in ended]
    level = await market.level("SKU-2")
    assert (level["on_hand"], level["reserved"]) == (before["on_hand"] - len(bought), before["reserved"])
    assert level["sold"] == before["sold"] + len(bought)


async def _fired(shopper: Shopper, cart_id: str, key: str) -> dict[str, Any]:
    """One more click in one of the tabs: whatever is final is the answer, to this and to every other click."""
    started = await shopper.check_out(cart_id, key=key, method=VISA, wait_seconds=20)
    answer = await shopper.outcome(started, patience_seconds=240)
    assert answer["state"] in FINAL_STATES
    return answer


async def _time_is_up(database: "asyncpg.Connection[asyncpg.Record]", checkout_id: str, seconds: float) -> None:
    """As if the checkout's time had passed so soon after it began: the timer fires with its next look.

    One that is over by then stays as it is, for its callers compare what they were told.
    """
    await asyncio.sleep(seconds)
    passed = "UPDATE checkout SET expires_at = now(), version = version + 1 WHERE id = $1 AND state <> ALL ($2)"
    await database.execute(passed, checkout_id, list(FINAL_STATES))
    await database.execute("UPDATE timer SET due_at = now(), free_at = now() WHERE key = $1", checkout_id)
