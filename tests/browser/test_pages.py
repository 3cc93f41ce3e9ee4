"""What holds for every page: it comes with the strict policy, a browser keeps to it, and who visits it notices."""

import pytest
from playwright.async_api import Browser

from tests.browser.front import Front
from tests.browser.visits import Visits

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_script_that_stands_in_a_page_is_not_run_and_a_visit_notices_that_it_was_tried(
    browser: Browser, front: Front
) -> None:
    visits = Visits(browser, front.url)
    page = await visits.begin()
    answer = await page.goto("/")
    assert answer is not None
    assert answer.status == 200
    await page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "document.title = 'run'";
            document.head.append(script);
        }"""
    )
    assert await page.title() != "run"
    with pytest.raises(AssertionError, match="Content Security Policy directive"):
        await visits.end()
