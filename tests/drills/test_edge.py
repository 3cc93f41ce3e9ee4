"""Processes as people meet them who use them while they leave, or who guess: nobody else sees more than a slow moment."""

import asyncio
import os
import signal
from collections import Counter
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from deploy.cli.settlement import settled
from deploy.cli.tenants import Wish, onboarded
from libs.common.http.rates import FREE_GUESSES
from libs.common.http.server import LINGER_SECONDS
from services import SERVICES
from tests.shared.market import Market

pytestmark = pytest.mark.asyncio(loop_scope="session")

BUYERS = 6
WAITERS = 3


async def _under_way(market: Market, name: str) -> tuple[str, dict[str, Any]]:
    """A token, and a checkout that rests until its payer has done something."""
    shopper = market.shop.shopper(f"customer:{name}")
    cart_id = await market.cart(shopper, {"SKU-1": 1})
    checkout = await shopper.check_out(cart_id, key=name, method="pm_card_authenticationRequired", wait_seconds=20)
    assert checkout["action_required"]
    return await shopper.token(), checkout


async def test_who_waits_is_answered_at_once_and_a_stream_ends_as_it_should_when_the_process_leaves(market: Market) -> None:
    token, checkout = await _under_way(market, "leaving")
    url = f"{market.api.stack.services['checkout'].url}/v1/checkouts/{checkout['id']}"
    headers = {"Authorization": f"Bearer {token}"}

    async with aiohttp.ClientSession(headers=headers) as session:

        async def waits() -> tuple[int, str | None]:
            async with session.get(url, headers={"Prefer": "wait=30"}) as answer:
                assert (await answer.json())["id"] == checkout["id"]
                return answer.status, answer.headers.get("Connection")

        async def says_that_it_leaves() -> bool:
            while True:
                async with session.get(f"{market.api.stack.services['checkout'].ops[0]}/readyz") as answer:
                    if answer.status == 503:
                        return bool((await answer.json())["missing"] == ["the process leaves"])
                await asyncio.sleep(0.02)

        async def follows() -> bytes:
            async with session.get(f"{url}/events") as answer:
                assert answer.status == 200
                connected.set()
                return await answer.read()

        connected = asyncio.Event()
        waiting = [asyncio.create_task(waits()) for _ in range(WAITERS)]
        stream = asyncio.create_task(follows())
        await connected.wait()
        await asyncio.sleep(1)
        assert not any(task.done() for task in [*waiting, stream])
        loop = asyncio.get_running_loop()
        told = loop.time()
        leaving = asyncio.create_task(market.stack.stop_process("checkout.api"))
        told_operators = asyncio.create_task(says_that_it_leaves())
        assert await asyncio.gather(*waiting) == [(200, "close")] * WAITERS
        answered = loop.time() - told
        assert (await stream).endswith(b"\n\n: this process leaves; come back\n\n")
        assert await told_operators
        await leaving
    await market.stack.start_process("checkout.api")
    assert answered < 10, "far from the 30 s that they would have waited"


async def test_who_comes_while_a_process_leaves_is_answered_and_told_not_to_come_again(market: Market) -> None:
    address = market.api.stack.services["cart"].url
    async with aiohttp.ClientSession() as session:
        os.kill(market.stack.pids()["cart.api"], signal.SIGTERM)
        await asyncio.sleep(LINGER_SECONDS / 2)
        closing = 0
        while True:
            try:
                async with session.get(f"{address}/v1/carts", headers={"Connection": "keep-alive"}) as answer:
                    assert answer.status == 401
                    closing += answer.headers.get("Connection") == "close"
            except aiohttp.ClientConnectorError:
                break  # refused cleanly: nobody listens any more
        assert closing
    await market.stack.stop_process("cart.api")
    await market.stack.start_process("cart.api")


async def test_a_rolling_restart_of_everything_under_load_is_seen_by_nobody_and_doubles_nothing(market: Market) -> None:
    over = asyncio.Event()
    bought: list[dict[str, Any]] = []

    async def buys(name: str) -> None:
        for number in range(1_000):
            shopper, cart_id = market.shop.shopper(f"customer:{name}-{number}"), uuid4()
            await shopper.put_cart(cart_id)
            await shopper.put_line(str(cart_id), f"SKU-{number % 5}", 1)
            started = await shopper.check_out(str(cart_id), key=f"{name}-{number}", method="pm_card_visa", wait_seconds=5)
            bought.append(await shopper.outcome(started, patience_seconds=240))
            if over.is_set():
                return

    buyers = [asyncio.create_task(buys(f"roller-{number}")) for number in range(BUYERS)]
    for service in SERVICES:
        for kind in ("api", "worker"):
            before = len(bought)
            await market.stack.stop_process(f"{service}.{kind}")
            await market.stack.start_process(f"{service}.{kind}")
            async with asyncio.timeout(240):
                while len(bought) <= before and not any(buyer.done() for buyer in buyers):
                    await asyncio.sleep(0.05)
    over.set()
    await asyncio.gather(*buyers)
    assert Counter(checkout["state"] for checkout in bought) == {"confirmed": len(bought)}
    ids = [checkout["id"] for checkout in bought]
    money = await settled(market.api, market.shop.tenant_id, ids, ids)
    charges = await market.all_charges()
    orders = Counter([order["checkout_id"] async for order in market.shop.orders()])
    assert [(orders[checkout_id], len(charges[checkout_id])) for checkout_id in ids] == [(1, 1)] * len(ids)
    assert {checkout["id"]: [checkout["total_minor"]] for checkout in bought} == dict(money.captured)


async def test_who_guesses_a_clients_secret_is_slowed_down_and_everybody_else_is_let_in(market: Market) -> None:
    identity = f"{market.api.stack.services['identity'].url}/oauth/token"
    victim = (await onboarded(market.api, Wish.of("victim"))).client

    async with aiohttp.ClientSession() as session:

        async def guess(secret: str) -> tuple[int, Any]:
            form = {"grant_type": "client_credentials", "client_id": victim.client_id, "client_secret": secret}
            async with session.post(identity, data=form) as answer:
                told = await answer.json(content_type=None)
                return answer.status, told.get("error") or told.get("code")

        guesses = [await guess(f"wrong-{number}") for number in range(FREE_GUESSES)]
        assert guesses == [(401, "invalid_client")] * FREE_GUESSES
        while (refused := await guess("wrong")) == (401, "invalid_client"):
            pass  # a pause has passed on a busy machine; the next is twice as long
        assert refused == (429, "rate-limited")
    assert await market.shop.token()
    assert await (await market.another_shop("unharmed")).token()
