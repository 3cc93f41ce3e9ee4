"""The databases come back from a copy of their disk, and Kafka and the provider have gone on: so does selling."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from http import HTTPStatus
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.cli.api import RefusedError, connected
from deploy.cli.supply import supply
from deploy.local.stack import Stack
from tests.shared.market import OFFERS, Market, shop_at
from tests.shared.verbs import cartwright, check, paid

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def own_market(tmp_path: Path) -> AsyncIterator[Market]:
    """On servers of its own."""
    stack = Stack(tmp_path, database_prefix="restored_", say=print)
    async with AsyncExitStack() as open_things:
        await open_things.enter_async_context(stack)
        api = await open_things.enter_async_context(connected(stack.description(), connections=50))
        shop = await shop_at(api, "restored")
        await supply(shop, "GBP", OFFERS, print)
        yield Market(stack, api, shop)


async def _at_rest(market: Market, source: Path, target: Path) -> None:
    """Copy the server's disk while it is down."""
    await market.stack.stop_process("postgres")
    await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)
    await asyncio.to_thread(shutil.copytree, source, target, symlinks=True)
    await market.stack.start_process("postgres")


async def _is_known(market: Market, payment_id: str) -> bool:
    try:
        await market.api.call("payments", "GET", f"/v1/payments/{payment_id}", token=await market.shop.token())
    except RefusedError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return False
    return True


@pytest.mark.long("the relay alone is restored in tests/faults")
@pytest.mark.timeout(600)
async def test_selling_goes_on_after_a_restore_and_what_the_databases_lack_is_told(own_market: Market, tmp_path: Path) -> None:
    market, disk, copy = own_market, own_market.stack.home.path / "postgres", tmp_path / "copy"
    kept = await paid(market, "kept")
    await _at_rest(market, disk, copy)
    lost = [await paid(market, f"lost-{number}") for number in range(3)]
    await _at_rest(market, copy, disk)

    sold = await paid(market, "sold")  # confirmed, captured, and known everywhere: each step is an event that was believed
    numbers = {order["id"]: order["number"] async for order in market.shop.orders()}
    assert numbers == {kept["order_id"]: 1, sold["order_id"]: 2}

    found = (await check(market, "--orphan-limit", "0")).violations
    assert ("order-number-twice", "2") in found, "it was given to one that is lost, and again"
    report = await cartwright(market, "restore", "--report", "--json")
    assert report.code == 1
    gaps = {gap["subject"] for gap in report.told["gaps"] if gap["kind"] == "order-lost"}
    assert gaps == {each["order_id"] for each in lost}, "each is named, with its money"
    missing = {each["our_id"] for each in report.told["breaks"] if each["kind"] == "missing-here"}
    # What was in a worker's hands when the database went it reads again from where the restored one stands, and so knows.
    reread = {each["payment_id"] for each in lost if await _is_known(market, each["payment_id"])}
    assert missing | reread == {each["payment_id"] for each in lost}, "money was taken of which no book knows"
    assert not missing & reread
    charges = await market.all_charges()
    assert [len(charges[each["id"]]) for each in lost] == [1, 1, 1], "nor was it taken again for what was read again"
