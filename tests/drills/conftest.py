"""A stack of its own for each module, on the shared servers: what is done here is not done to one tenant alone."""

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from tests.shared.market import Market, market_in, standing
from tests.shared.places import Templates


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def market(
    request: pytest.FixtureRequest,
    templates: Templates,
    bootstrap_servers: str,
    fresh_prefix: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Market]:
    async with standing(templates, bootstrap_servers, fresh_prefix("drill"), tmp_path_factory.mktemp("stack")) as where:
        yield await market_in(where, request.node.path.stem.removeprefix("test_").replace("_", "-"))
