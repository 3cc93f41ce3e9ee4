"""Payments has an order's money and has not heard of the order: it asks checkout over the real topics, and keeps the money."""

import asyncio

import asyncpg
import pytest

from deploy.cli.settlement import settled
from tests.shared.market import Market

pytestmark = pytest.mark.asyncio(loop_scope="session")

UNHEARD = "UPDATE payment SET order_standing = 'awaited' WHERE checkout_id = $1 RETURNING id"
LONG_AGO = "UPDATE ledger_entry SET posted_at = now() - interval '1 hour' WHERE payment_id = $1"
ASKED = """SELECT order_asked_at IS NOT NULL AS asked, order_standing, refunding_minor + refunded_minor AS back
FROM payment WHERE id = $1"""


async def test_money_whose_order_was_not_heard_of_stays_with_it_once_checkout_was_asked(market: Market, admin_url: str) -> None:
    shopper = market.shop.shopper("customer:unheard")
    cart_id = await market.cart(shopper, {"SKU-1": 1})
    checkout = await shopper.check_out(cart_id, key="unheard", method="pm_card_visa", wait_seconds=20)
    assert checkout["state"] == "confirmed"
    await settled(market.api, market.shop.tenant_id, [checkout["id"]], [checkout["id"]])
    connection = await asyncpg.connect(f"{admin_url.rpartition('/')[0]}/{market.stack._prefixes[0]}payments")
    try:
        # As if its confirmation had been lost, or lay parked, for an hour.
        await connection.execute("SET session_replication_role = replica")
        payment_id = await connection.fetchval(UNHEARD, checkout["id"])
        await connection.execute(LONG_AGO, payment_id)
        async with asyncio.timeout(240):
            while (row := await connection.fetchrow(ASKED, payment_id))["order_standing"] != "confirmed":
                await asyncio.sleep(0.5)
        assert (row["asked"], row["back"]) == (True, 0), "it was asked for, and nothing went back"
    finally:
        await connection.close()
    [intent] = await market.charges(checkout["id"])
    assert intent["amount_received"] == checkout["total_minor"]
