"""A guest's refresh token in a cookie of the browser: good once like any, of one shop, and in no answer that a script reads."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from libs.common.contracts import cart, checkout, payments
from services.identity.api.kept import bounds_at
from tests.integration.browsing import Browser, claims
from tests.shared.callers import message

PATH = "/oauth/token"
ASKED = {"grant_type": "refresh_token", "refresh_token_in": "cookie"}
BOUNDS = [f"Path={PATH}", "Max-Age=2592000", "HttpOnly", "SameSite=Strict"]


async def _begun(browser: Browser) -> httpx.Response:
    """A guest's session in a shop that is open; the browser forgets nothing of what it is given."""
    for publisher, service in ((cart, "cart"), (checkout, "checkout"), (payments, "payments")):
        told = publisher.TenantProvisioned(tenant_id=browser.tenant_id, service=service, tenant_version=1)
        await browser.shell.execute(message(told, browser.tenant_id))
    return await browser.client.post("/v1/sessions", json={"tenant_id": str(browser.tenant_id), "refresh_token_in": "cookie"})


async def _renewed(browser: Browser, **changes: Any) -> httpx.Response:
    return await browser.client.post(PATH, data={**ASKED, "tenant_id": str(browser.tenant_id), **changes})


def _cookie(answer: httpx.Response) -> str:
    """What the browser keeps from now on, and under which bounds it was told to."""
    assert "refresh_token" not in answer.json()
    pair, *bounds = answer.headers["set-cookie"].split("; ")
    assert bounds == BOUNDS
    name, _, token = pair.partition("=")
    assert token.startswith("rt_")
    browser_keeps = answer.request.headers.get("cookie", "")
    assert token not in browser_keeps
    assert name.startswith("cartwright-")
    return token


def test_where_there_is_tls_the_cookie_goes_over_nothing_else() -> None:
    assert bounds_at("https://shop.test").split("; ") == [*BOUNDS, "Secure"]
    assert bounds_at("http://127.0.0.1:8080").split("; ") == BOUNDS


async def test_who_comes_back_with_the_cookie_is_the_same_guest_and_each_is_good_once(browser: Browser) -> None:
    begun = await _begun(browser)
    assert begun.status_code == 201, begun.text
    first, guest = _cookie(begun), claims(begun.json()["access_token"])["sub"]
    renewed = await _renewed(browser)
    second = _cookie(renewed)
    assert (claims(renewed.json()["access_token"])["sub"], second != first) == (guest, True)
    third = await _renewed(browser)
    assert (third.status_code, claims(third.json()["access_token"])["sub"]) == (200, guest)
    stolen = await browser.client.post(PATH, data={"grant_type": "refresh_token", "refresh_token": first})
    assert (stolen.status_code, stolen.json()["error"]) == (400, "invalid_grant"), "used long ago: the session is over"
    assert (await _renewed(browser)).status_code == 400


ELSEWHERE: tuple[dict[str, str], ...] = (
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Origin": "https://evil.test"},
    {"Sec-Fetch-Site": "same-site", "Origin": "https://blog.shop.test"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "https://evil.test"},
    {"Origin": "null"},
)


@pytest.mark.parametrize("headers", ELSEWHERE)
async def test_no_page_from_elsewhere_makes_a_browser_keep_a_session_of_its_choice(
    browser: Browser, headers: dict[str, str]
) -> None:
    planted = _cookie(await _begun(browser))
    whose = {"tenant_id": str(browser.tenant_id)}
    begun = await browser.client.post("/v1/sessions", headers=headers, json={**whose, "refresh_token_in": "cookie"})
    taken = await browser.client.post(PATH, headers=headers, data={**ASKED, **whose, "refresh_token": planted})
    for refused, status in ((begun, 422), (taken, 400)):
        assert refused.status_code == status, refused.text
        assert "set-cookie" not in refused.headers
    here = {"Sec-Fetch-Site": "same-origin", "Origin": str(browser.client.base_url).rstrip("/")}
    for ours in (here, {"Origin": here["Origin"]}):
        assert (await browser.client.post(PATH, headers=ours, data={**ASKED, **whose})).status_code == 200


async def test_a_cookie_is_of_its_shop_and_of_no_machine_or_application(browser: Browser) -> None:
    assert (await _renewed(browser)).json()["error"] == "invalid_grant", "there is none"
    mine = _cookie(await _begun(browser))
    for changes, why in (
        ({"tenant_id": str(uuid4())}, "invalid_grant"),
        ({"tenant_id": str(uuid4()), "refresh_token": mine}, "invalid_grant"),
        ({"tenant_id": "market"}, "invalid_grant"),
        ({"tenant_id": ""}, "invalid_request"),
        ({"refresh_token_in": "drawer"}, "invalid_request"),
        ({"client_id": browser.client_id}, "invalid_request"),
    ):
        refused = await _renewed(browser, **changes)
        assert (refused.status_code, refused.json()["error"]) == (400, why), changes
        assert "set-cookie" not in refused.headers
    assert (await _renewed(browser)).status_code == 200, "none of it used the token up"
