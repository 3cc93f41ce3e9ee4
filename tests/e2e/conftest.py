"""A shop for each module, in a stack of eight processes: one that many modules share, or for those that break things their own.

Each stack has databases and topics of its own on the shared servers. A module that kills, counts or corrupts what is not its
tenant's alone says `pytest.mark.own_stack`.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.cli.api import Api, connected
from deploy.cli.supply import supply
from deploy.local.stack import Stack
from tests.shared.market import OFFERS, Market, shop_at

Standing = tuple[Stack, Api]


@pytest.fixture(scope="session")
def fresh_stack(
    admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Stack]:
    """Describes a stack with nothing in it."""

    def fresh() -> Stack:
        prefix = fresh_prefix("e2e")
        home: Path = tmp_path_factory.mktemp("stack")
        return Stack(
            home,
            database_prefix=prefix,
            topic_prefix=prefix,
            postgres_admin_url=admin_url,
            kafka_bootstrap=bootstrap_servers,
            say=print,
        )

    return fresh


@asynccontextmanager
async def _standing(stack: Stack) -> AsyncIterator[Standing]:
    async with AsyncExitStack() as open_things:
        await open_things.enter_async_context(stack)
        yield stack, await open_things.enter_async_context(connected(stack.description(), connections=100))


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def shared_stack(fresh_stack: Callable[[], Stack]) -> AsyncIterator[Standing]:
    async with _standing(fresh_stack()) as standing:
        yield standing


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def own_stack(fresh_stack: Callable[[], Stack]) -> AsyncIterator[Standing]:
    async with _standing(fresh_stack()) as standing:
        yield standing


@pytest.fixture(scope="module")
def standing(request: pytest.FixtureRequest) -> Standing:
    """The stack of this module."""
    is_alone = request.node.get_closest_marker("own_stack") is not None
    found: Standing = request.getfixturevalue("own_stack" if is_alone else "shared_stack")
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def market(request: pytest.FixtureRequest, standing: Standing) -> Market:
    """A shop of this module's own, with something on its shelves."""
    stack, api = standing
    shop = await shop_at(api, request.node.path.stem.removeprefix("test_").replace("_", "-"))
    await supply(shop, "GBP", OFFERS, print)
    return Market(stack, api, shop)
