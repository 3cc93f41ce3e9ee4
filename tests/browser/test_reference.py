"""The reference in a real browser: it tells of every operation, and each request that it shows is one the services understand."""

import asyncio
import json
import os
from typing import Any

import pytest
from playwright.async_api import Page, expect

from deploy.cli.tenants import operator
from tests.browser.conftest import Visit
from tests.browser.front import Front
from tests.browser.staff import joined, signed_in
from tests.browser.visits import barriers
from tests.shared.market import Market

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.long("executes every request that the reference shows, some as four callers: two minutes"),
]

SHOWN = """all => all.map(each => [each.id, each.querySelector("pre code").textContent])"""
NOT_UNDERSTOOD = {400, 405, 406, 408, 411, 413, 414, 415, 431, 501}
UNPROVEN = {"bad-signature", "unknown-application", "invalid_client"}
"""What is answered where only what nobody can show is wrong: a signature, a program of one's own, its secret."""
AT_ONCE = 6


async def _run(code: str, variables: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Run a request as somebody would who copies it; answers its status, and what was said of it."""
    script = code + " \\\n  -sS --max-time 5 -H 'Prefer: wait=0' -w '\\n%{http_code}'"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", script),
        env={**os.environ, **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    body, _, status = (await process.communicate())[0].decode(errors="replace").rpartition("\n")
    try:
        told = json.loads(body)
    except ValueError:  # a page, an event stream, or nothing
        told = {}
    return int(status or 0), told if isinstance(told, dict) else {}


async def test_the_reference_tells_of_every_operation_and_each_request_that_it_shows_is_understood(
    visit: Visit, front: Front, market: Market
) -> None:
    page = await visit()
    await page.goto("/docs/")
    await expect(page.locator("main:not([aria-busy])")).to_be_visible()
    assert await barriers(page) == []
    shown: dict[str, str] = dict(await page.eval_on_selector_all("article:has(pre)", SHOWN))
    document = await (await page.request.get("/docs/openapi.json")).json()
    operations = {each["operationId"]: each for path in document["paths"].values() for each in path.values()}
    assert shown.keys() == operations.keys()
    await page.get_by_label("Search").fill("give money back refund")
    assert 0 < await page.locator("article:visible:has(pre)").count() < len(shown)

    callers = [
        await _token_of(await visit(), market, await joined(market, "Rea", "owner")),
        await market.shop.shopper("customer:reads").token(),
        await market.shop.token(),
        await operator(market.api).token(),
    ]
    few = asyncio.Semaphore(AT_ONCE)

    async def understood(name: str) -> str | None:
        """What is wrong with the request that is shown, asked by whoever may ask it; None when nothing is."""
        told = []
        for token in callers:
            async with few:
                status, problem = await _run(shown[name], {"CARTWRIGHT": front.url, "TOKEN": token})
            if status not in {401, 403} or problem.get("error") in UNPROVEN:
                code = problem.get("code") or problem.get("error")
                is_understood = code in UNPROVEN or (status and status not in NOT_UNDERSTOOD and code != "schema")
                return None if is_understood else f"{name}: {status} {problem}\n{shown[name]}"
            told.append(f"{status} {problem.get('code') or problem.get('error')}")
        return f"{name}: {told}\n{shown[name]}"

    wrong = [each for each in await asyncio.gather(*map(understood, sorted(shown))) if each]
    assert not wrong, "\n\n".join(wrong)


async def _token_of(page: Page, market: Market, email: str) -> str:
    """The token that somebody of the staff works with, as the console sends it."""
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.headers.get("authorization", "")))
    await signed_in(page, market, email)
    return next(each.removeprefix("Bearer ") for each in sent if each.startswith("Bearer "))
