"""Kafka is away while something is taken from somebody: what a process cannot have heard of, and what it does about that."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.cli.api import RefusedError, connected
from deploy.local.stack import Stack
from tests.shared.doors import is_believed, is_refused, told
from tests.shared.machines import Machine
from tests.shared.market import Market, shop_at

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.long("a broker of its own, away: a minute; the rule is in tests/unit"),
]

PATIENCE_SECONDS = 120


@pytest_asyncio.fixture(loop_scope="session")
async def own_market(tmp_path: Path) -> AsyncIterator[Market]:
    stack = Stack(tmp_path, database_prefix="unheard_", say=print)
    async with AsyncExitStack() as open_things:
        await open_things.enter_async_context(stack)
        api = await open_things.enter_async_context(connected(stack.description(), connections=50))
        yield Market(stack, api, await shop_at(api, "market"))


@pytest.mark.timeout(600)
async def test_what_was_revoked_while_kafka_is_away_gets_no_new_token_and_no_process_that_starts_lets_it_in(
    own_market: Market, request: pytest.FixtureRequest
) -> None:
    market, minute = own_market, range(60 if request.config.getoption("--long") else 1)
    doomed, spared = await Machine.of(market), await Machine.of(market)
    stolen, good = await doomed.token(), await spared.token()
    assert await is_believed(market, stolen)
    assert await is_believed(market, good)

    await market.stack.kill("kafka")
    await doomed.ended()
    with pytest.raises(RefusedError, match="invalid_client"):
        await doomed.token()
    identity, cart = (market.stack.description().services[service].url for service in ("identity", "cart"))
    for _ in minute:
        assert {status for door, status in (await told(market, stolen)).items() if door.startswith(f"{identity}/")} == {401}
        assert set((await told(market, good)).values()) <= {200, 403}, "who has a token goes on"
        await asyncio.sleep(1)

    await market.stack.kill("cart.api")
    await market.stack.start_process("cart.api")

    async def at_the_cart(token: str) -> int:
        return next(status for door, status in (await told(market, token)).items() if door.startswith(f"{cart}/"))

    assert await at_the_cart(stolen) == 503, "it may have been revoked, and nobody has told"
    assert await at_the_cart(good) == 503
    fresh = ""

    async def is_let_in_with_a_new_one() -> bool:
        nonlocal fresh
        fresh = await spared.token()
        return await at_the_cart(fresh) == 200

    await market.until(is_let_in_with_a_new_one, PATIENCE_SECONDS)

    await market.stack.start_process("kafka")
    await market.until(lambda: is_refused(market, stolen), PATIENCE_SECONDS)
    for token in (good, fresh):
        assert await is_believed(market, token)
