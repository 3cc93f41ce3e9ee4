"""A shop for each module, in one stack of eight processes on the shared servers: what is done here is done to one tenant alone.

What kills, counts or corrupts anything else is a drill (`tests/drills`).
"""

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from tests.shared.market import Market, Standing, market_in, standing
from tests.shared.places import Templates


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def stack(
    templates: Templates, bootstrap_servers: str, fresh_prefix: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Standing]:
    async with standing(templates, bootstrap_servers, fresh_prefix("e2e"), tmp_path_factory.mktemp("stack")) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def market(request: pytest.FixtureRequest, stack: Standing) -> Market:
    return await market_in(stack, request.node.path.stem.removeprefix("test_").replace("_", "-"))
