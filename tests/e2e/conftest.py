"""A whole stack for each module: eight processes of its own on the shared servers, and a shop in it."""

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from tests.shared.market import Market, opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def market(
    admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Market]:
    async with opened(admin_url, bootstrap_servers, fresh_prefix("e2e"), tmp_path_factory.mktemp("stack")) as market:
        yield market
