"""Purchases in a running market, and the verbs that an operator asks about them."""

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from deploy.cli.shop import Shopper
from services.payments.gateway.stripe import StripeGateway
from tests.shared.market import Market
from tests.shared.variables import without_ours

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Said:
    """What a verb ended with, and what it printed."""

    code: int
    out: str
    err: str = ""

    @property
    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def violations(self) -> set[tuple[str, str]]:
        return {(each["invariant"], each["subject"]) for each in self.told["violations"]}


async def cartwright(market: Market, *arguments: str, **variables: str) -> Said:
    """The command itself, as an operator runs it: here, unless the variables say where else."""
    environment = without_ours() | {"CARTWRIGHT_HOME": str(market.stack.home.path)} | variables
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "deploy.cli",
        *arguments,
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    print(err.decode(), end="", file=sys.stderr)
    return Said(process.returncode or 0, out.decode(), err.decode())


async def check(market: Market, *options: str) -> Said:
    return await cartwright(market, "invariants", "--json", "--patience", "2", *options)


async def buy(market: Market, name: str, lines: dict[str, int], method: str = "pm_card_visa") -> tuple[Shopper, dict[str, Any]]:
    shopper = market.shop.shopper(f"customer:{name}")
    cart_id = await market.cart(shopper, lines)
    started = await shopper.check_out(cart_id, key=f"buy-{cart_id}", method=method, wait_seconds=20)
    return shopper, await shopper.outcome(started, patience_seconds=240)


async def paid(market: Market, name: str) -> dict[str, Any]:
    """An order whose money is there."""
    _, checkout = await buy(market, name, {"SKU-1": 2})

    async def captured() -> bool:
        return bool((await market.shop.order(checkout["order_id"]))["payment_state"] == "captured")

    await market.until(captured)
    return checkout


async def held_for_no_order(market: Market) -> str:
    """Have the provider hold money of this shop's for a payment that we know nothing of; answers that payment's id."""
    stack, lost = market.stack.description(), str(uuid4())
    assert stack.stripe_api_base is not None
    assert stack.stripe_api_key is not None
    gateway = StripeGateway(stack.stripe_api_key, stack.stripe_api_base)
    await gateway.create_intent(
        str(uuid4()),
        amount_minor=700,
        currency="GBP",
        method="pm_card_visa",
        capture="manual",
        metadata={"tenant_id": str(market.shop.tenant_id), "payment_id": lost},
    )
    await gateway.close()
    return lost


async def post(market: Market, token: str, path: str, key: str, body: object = None) -> dict[str, Any]:
    answer: dict[str, Any] = (await market.api.call("checkout", "POST", path, token=token, key=key, body=body)).body
    return answer
