"""Kafka is lost with its disk under a running stack: nobody buys anything until an operator says that the new log is right."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from deploy.cli.api import RefusedError, connected
from deploy.cli.publisher import client_arguments
from deploy.cli.settlement import settled
from deploy.cli.supply import supply
from deploy.cli.tenants import Wish, onboarded, operator
from deploy.local.stack import Stack
from libs.common.messaging.reading import Consumer
from tests.shared.market import OFFERS, Market

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.long("a broker of its own, lost with its disk: a minute; the reading of a lost log is in tests/faults"),
]

PATIENCE_SECONDS = 240
SERVICES = ("cart", "checkout", "payments", "identity")


@pytest_asyncio.fixture(loop_scope="session")
async def own_market(tmp_path: Path) -> AsyncIterator[Market]:
    stack = Stack(tmp_path, database_prefix="lost_", say=print)
    async with AsyncExitStack() as open_things:
        await open_things.enter_async_context(stack)
        api = await open_things.enter_async_context(connected(stack.description(), connections=50))
        shop = (await onboarded(api, Wish.of("market"))).shop(api)
        await supply(shop, "GBP", OFFERS, print)
        yield Market(stack, api, shop)


async def _begun(market: Market, number: int) -> tuple[Any, dict[str, Any]]:
    shopper = market.shop.shopper(f"customer:{number}")
    cart_id = await market.cart(shopper, {"SKU-1": 1})
    return shopper, await shopper.check_out(cart_id, key=f"lost-{number}", method="pm_card_visa", wait_seconds=0)


async def _is_noticed(market: Market) -> bool:
    """Whether every service says that its logs are others. Just after a start the broker does not know all topics yet."""
    for service in SERVICES:
        found = await _answer(market, service, "GET", "")
        if found is None or not any(each["state"] == "other-log" for each in found["items"]):
            return False
    return True


async def _adopt(market: Market, service: str) -> bool:
    return await _answer(market, service, "POST", "/adopt", body={"reason": "the broker's disk is gone"}) is not None


async def _answer(market: Market, service: str, method: str, rest: str, **options: Any) -> dict[str, Any] | None:
    """What a worker says of its positions, unless the broker does not answer it yet."""
    url = f"{market.api.stack.services[service].ops[-1]}/ops/positions{rest}"
    token = await operator(market.api).token()
    try:
        answer = await market.api.ask(url, method, token=token, seconds=60, **options)
    except RefusedError as error:
        if error.code != "broker-unavailable":
            raise
        return None
    return dict(answer.body)


async def _announced(market: Market) -> bool:
    """Whether the compacted topics know the tenant and a signing key again."""
    stack = market.api.stack
    consumer = Consumer("tenant.v1", "signing-key.v1", **client_arguments(stack))
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        return {partition.topic for partition, end in ends.items() if end} == {"tenant.v1", "signing-key.v1"}
    finally:
        await consumer.stop()


@pytest.mark.timeout(900)
async def test_existing_tenants_buy_again_once_the_new_log_is_adopted_and_nothing_is_doubled(
    own_market: Market, tmp_path: Path
) -> None:
    market = own_market
    shopper, started = await _begun(market, 0)
    assert (await shopper.outcome(started, patience_seconds=PATIENCE_SECONDS))["state"] == "confirmed"
    await settled(market.api, market.shop.tenant_id, [started["id"]], [started["id"]])

    await market.stack.kill("kafka")
    await asyncio.to_thread(shutil.rmtree, tmp_path / "kafka")
    await market.stack.start_process("kafka")

    await market.until(lambda: _is_noticed(market), PATIENCE_SECONDS)
    waiting, stuck = await _begun(market, 1)
    await asyncio.sleep(5)
    assert (await waiting.read_checkout(stuck["id"], wait_seconds=0))["state"] not in {"confirmed", "failed"}

    for service in SERVICES:
        await market.until(partial(_adopt, market, service), PATIENCE_SECONDS)
    assert (await waiting.outcome(stuck, patience_seconds=PATIENCE_SECONDS))["state"] == "confirmed"
    another, more = await _begun(market, 2)
    assert (await another.outcome(more, patience_seconds=PATIENCE_SECONDS))["state"] == "confirmed"

    ids = [started["id"], stuck["id"], more["id"]]
    await settled(market.api, market.shop.tenant_id, ids, ids)
    charges = await market.all_charges()
    assert {each: len(charges[each]) for each in ids} == dict.fromkeys(ids, 1)
    assert sorted([order["checkout_id"] async for order in market.shop.orders()]) == sorted(ids)
    await market.until(lambda: _announced(market), PATIENCE_SECONDS)
