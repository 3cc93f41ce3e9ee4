"""`./cartwright reconcile` and `payments unknown` on a whole stack, as an operator runs them."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from tests.shared.market import Market
from tests.shared.verbs import Said, cartwright, held_for_no_order

pytestmark = pytest.mark.asyncio(loop_scope="session")

RECONCILE = ("reconcile", "--tenant", "reconcile", "--grace-seconds", "0")


async def _reconcile(market: Market) -> tuple[int, dict[str, Any]]:
    said = await cartwright(market, *RECONCILE, "--json")
    [report] = said.told["tenants"]
    assert said.told["reconciled"] == (said.code == 0)
    return said.code, report


async def test_books_that_agree_exit_with_0_and_a_break_that_nobody_can_repair_with_1(market: Market) -> None:
    shopper = market.shop.shopper("customer:books")
    cart_id = await market.cart(shopper, {"SKU-1": 2})
    started = await shopper.check_out(cart_id, key=f"buy-{cart_id}", method="pm_card_visa", wait_seconds=20)
    checkout = await shopper.outcome(started, patience_seconds=240)

    async def captured() -> bool:
        return [charge["status"] for charge in await market.charges(checkout["id"])] == ["succeeded"]

    await market.until(captured)
    # The capture's answer may still be on its way into the books: that much patience is an operator's own.
    async with asyncio.timeout(240):
        while (await _reconcile(market))[0]:
            await asyncio.sleep(0.5)
    code, report = await _reconcile(market)
    assert (code, report["totals"][0]["ours"]) == (0, report["totals"][0]["theirs"])
    assert report["totals"][0]["ours"]["gross_minor"] == checkout["total_minor"]

    lost = await held_for_no_order(market)
    code, report = await _reconcile(market)
    assert code == 1
    assert [(each["kind"], each["our_id"]) for each in report["breaks"] if each["state"] == "open"] == [("missing-here", lost)]
    said = await cartwright(market, *RECONCILE)
    assert said.code == 1
    [line] = [line for line in said.out.splitlines() if "missing-here" in line]
    assert line.split()[0] == "open"
    [lasting] = [each["id"] for each in report["breaks"] if each["state"] == "open"]
    words = ("--tenant", "reconcile", "--reason", "made by this test, for no order")
    assert (await cartwright(market, "payments", "breaks", "close", lasting, *words)).code == 0
    assert (await _reconcile(market))[0] == 0, "what a person has closed is no failure any more"
    assert (await cartwright(market, "payments", "breaks", "close", lasting, *words)).code == 1


async def test_where_every_outcome_is_known_the_list_is_empty_and_there_is_nothing_to_resolve(market: Market) -> None:
    assert await cartwright(market, "payments", "unknown", "list") == Said(0, "every outcome is known\n")
    words = ("--verdict", "read-again", "--reason", "nothing to see")
    assert (await cartwright(market, "payments", "unknown", "resolve", str(uuid4()), *words)).code == 1
