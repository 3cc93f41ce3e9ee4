"""What holds for every page: it comes with the strict policy, and a browser keeps to it."""

import pytest

from tests.browser.conftest import Visit

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_page_runs_no_script_that_stands_in_it_and_asks_no_other_host(visit: Visit) -> None:
    page = await visit()
    answer = await page.goto("/")
    assert answer is not None
    assert answer.status == 200
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert (await page.evaluate("fetch('/.well-known/jwks.json').then(answer => answer.status)")) == 200
    reported = await page.evaluate(
        """() => new Promise(resolve => {
            document.addEventListener("securitypolicyviolation", event => resolve(event.effectiveDirective), {once: true});
            const script = document.createElement("script");
            script.textContent = "document.title = 'run'";
            document.head.append(script);
        })"""
    )
    assert reported == "script-src-elem"
    assert await page.title() != "run"
