"""Somebody of the staff before the console: asked in, signed in on identity's page, and at the keyboard."""

import base64
import hmac
import os
import time
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Page, expect

from deploy.cli.tenants import operator
from tests.browser.visits import PATIENCE_SECONDS
from tests.shared.market import Market

PASSWORD: Final = "correct horse battery staple"
STEP_SECONDS: Final = 30
_MOST_STOPS: Final = 120

expect.set_options(timeout=PATIENCE_SECONDS * 1000)


async def joined(market: Market, name: str, *roles: str) -> str:
    """Make a member of the shop's staff; answers their address."""
    email, token = f"{name.lower()}@shop.test", await operator(market.api).token()
    body = {"email": email, "roles": roles, "tenant_id": str(market.shop.tenant_id)}
    invited = await market.api.call("identity", "POST", "/v1/invitations", token=token, body=body, key=f"invite-{name}")
    accepted = {"token": invited.body["token"], "name": name, "password": PASSWORD}
    await market.api.call("identity", "POST", "/v1/invitations/accept", body=accepted)
    return email


async def to_identity(page: Page, market: Market, email: str) -> None:
    """Go to the console, on to the page where people sign in, and show the password there."""
    await page.goto("/console/")
    await page.get_by_label("Shop").fill(str(market.shop.tenant_id))
    await page.keyboard.press("Enter")
    await page.get_by_label("E-mail").fill(email)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")


async def signed_in(page: Page, market: Market, email: str) -> None:
    """Come in with a password alone."""
    await to_identity(page, market, email)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")


def code_of(secret: str, *, ahead: int = 0) -> str:
    """What an authenticator app shows for a secret (RFC 6238), so many steps ahead of now."""
    step = int(time.time()) // STEP_SECONDS + ahead
    mac = hmac.digest(base64.b32decode(secret), step.to_bytes(8, "big"), "sha1")
    at = mac[-1] & 15
    return f"{(int.from_bytes(mac[at : at + 4], 'big') & 0x7FFFFFFF) % 10**6:06d}"


async def tabbed_to(page: Page, text: str) -> None:
    """Press the tabulator until what is focused is called so, and can be seen to be."""
    for _ in range(_MOST_STOPS):
        await page.keyboard.press("Tab")
        name, outline = await page.evaluate(
            """() => {
                const at = document.activeElement;
                const label = at.labels?.[0]?.textContent ?? at.getAttribute("aria-label") ?? at.textContent;
                return [label.trim(), getComputedStyle(at).outlineStyle];
            }"""
        )
        if name == text:
            assert outline != "none", f"nobody sees that {text!r} is focused"
            return
    raise AssertionError(f"no way leads to {text!r} by keyboard")


async def pictured(page: Page, name: str, *, height: int) -> None:
    """Take a picture for the documents, where `PICTURES` names a folder for them: no test run changes what is committed."""
    folder = os.environ.get("PICTURES")
    if folder is not None:
        clip: Any = {"x": 0, "y": 0, "width": 1280, "height": height}
        await page.screenshot(path=Path(folder) / f"{name}.png", full_page=True, clip=clip)
