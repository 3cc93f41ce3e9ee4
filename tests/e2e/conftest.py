"""A shop for each module, in a stack of eight processes: one that many modules share, or for those that break things their own.

Each stack has databases and topics of its own on the shared servers. A module that kills, counts or corrupts what is not its
tenant's alone says `pytest.mark.own_stack`.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest
import pytest_asyncio

from tests.shared.market import Market, Standing, market_in, standing

Fresh = Callable[[], AbstractAsyncContextManager[Standing]]


@pytest.fixture(scope="session")
def fresh(
    admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Fresh:
    """Starts a stack with nothing in it."""
    return lambda: standing(admin_url, bootstrap_servers, fresh_prefix("e2e"), tmp_path_factory.mktemp("stack"))


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def shared_stack(fresh: Fresh) -> AsyncIterator[Standing]:
    async with fresh() as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def own_stack(fresh: Fresh) -> AsyncIterator[Standing]:
    async with fresh() as found:
        yield found


@pytest.fixture(scope="module")
def where(request: pytest.FixtureRequest) -> Standing:
    """The stack of this module."""
    is_alone = request.node.get_closest_marker("own_stack") is not None
    found: Standing = request.getfixturevalue("own_stack" if is_alone else "shared_stack")
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def market(request: pytest.FixtureRequest, where: Standing) -> Market:
    """A shop of this module's own, with something on its shelves."""
    return await market_in(where, request.node.path.stem.removeprefix("test_").replace("_", "-"))
