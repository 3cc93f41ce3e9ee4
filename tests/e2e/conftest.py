"""A whole stack for each module: eight processes of its own on the shared servers, and a shop in it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.cli.api import connected
from deploy.cli.supply import supply
from deploy.local.stack import Stack
from tests.shared.market import OFFERS, Market, shop_at


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def market(
    admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Market]:
    prefix = fresh_prefix("e2e")
    home: Path = tmp_path_factory.mktemp("stack")
    stack = Stack(
        home,
        database_prefix=prefix,
        topic_prefix=prefix,
        postgres_admin_url=admin_url,
        kafka_bootstrap=bootstrap_servers,
        say=print,
    )
    async with AsyncExitStack() as open_things:
        await open_things.enter_async_context(stack)
        api = await open_things.enter_async_context(connected(stack.description(), connections=100))
        shop = await shop_at(api, "market")
        await supply(shop, "GBP", OFFERS, print)
        yield Market(stack, api, shop)
