"""`./cartwright reconcile` and `payments unknown` on a whole stack, as an operator runs them."""

import asyncio
import json
import os
import sys
from typing import Any
from uuid import uuid4

import pytest

from deploy.local.state import ROOT
from services.payments.gateway.stripe import StripeGateway
from tests.shared.market import Market

pytestmark = pytest.mark.asyncio(loop_scope="session")

RECONCILE = ("reconcile", "--tenant", "reconcile", "--grace-seconds", "0")


async def _cartwright(market: Market, *arguments: str) -> tuple[int, str]:
    """Run a verb on the market's stack; its exit code, and what it prints."""
    environment = {"PATH": os.environ["PATH"], "CARTWRIGHT_HOME": str(market.stack.home.path), "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "deploy.cli", *arguments, env=environment, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def _reconcile(market: Market) -> tuple[int, dict[str, Any]]:
    code, printed = await _cartwright(market, *RECONCILE, "--json")
    told = json.loads(printed)
    [report] = told["tenants"]
    assert told["reconciled"] == (code == 0)
    return code, report


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

    stack = market.stack.description()
    assert stack.stripe_api_base is not None
    assert stack.stripe_api_key is not None
    gateway = StripeGateway(stack.stripe_api_key, stack.stripe_api_base)
    lost = str(uuid4())
    await gateway.create_intent(
        str(uuid4()),
        amount_minor=700,
        currency="GBP",
        method="pm_card_visa",
        capture="manual",
        metadata={"tenant_id": str(market.shop.tenant_id), "payment_id": lost},
    )
    await gateway.close()
    code, report = await _reconcile(market)
    assert code == 1
    assert [(each["kind"], each["our_id"]) for each in report["breaks"] if each["state"] == "open"] == [("missing-here", lost)]
    code, printed = await _cartwright(market, *RECONCILE)
    assert code == 1
    [line] = [line for line in printed.splitlines() if "missing-here" in line]
    assert line.split()[0] == "open"
    [lasting] = [each["id"] for each in report["breaks"] if each["state"] == "open"]
    words = ("--tenant", "reconcile", "--reason", "made by this test, for no order")
    assert (await _cartwright(market, "payments", "breaks", "close", lasting, *words))[0] == 0
    assert (await _reconcile(market))[0] == 0, "what a person has closed is no failure any more"
    assert (await _cartwright(market, "payments", "breaks", "close", lasting, *words))[0] == 1


async def test_where_every_outcome_is_known_the_list_is_empty_and_there_is_nothing_to_resolve(market: Market) -> None:
    assert await _cartwright(market, "payments", "unknown", "list") == (0, "every outcome is known\n")
    words = ("--verdict", "read-again", "--reason", "nothing to see")
    code, _ = await _cartwright(market, "payments", "unknown", "resolve", str(uuid4()), *words)
    assert code == 1
