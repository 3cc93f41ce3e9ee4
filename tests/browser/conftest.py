"""A browser before a stack: one stack a module, one Chromium a session, one context a visitor."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from tests.browser.front import Front, front_of
from tests.browser.visits import CHROMIUM_OPTIONS, Visits
from tests.shared.market import Market, market_in, standing
from tests.shared.places import Templates

Visit = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip(
            "not proven: that the pages work in a browser (there is no `chromium`; Debian and Ubuntu have it as a package)"
        )
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=list(CHROMIUM_OPTIONS))
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def market(
    browser: Browser,  # noqa: ARG001  where there is none, nothing is started
    templates: Templates,
    bootstrap_servers: str,
    fresh_prefix: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Market]:
    async with standing(templates, bootstrap_servers, fresh_prefix("browser"), tmp_path_factory.mktemp("stack")) as where:
        yield await market_in(where)


@pytest.fixture(scope="module")
def front(market: Market) -> Front:
    return front_of(market)


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser, front: Front) -> AsyncIterator[Visit]:
    """Comes as somebody new, with cookies and storage of their own; afterwards holds what every page must keep."""
    visits = Visits(browser, front.url)

    async def come(**options: Any) -> Page:
        return await visits.begin(**options)

    yield come
    await visits.end()
