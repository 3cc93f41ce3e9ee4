"""Members who sign in by browser: with a page that needs no script, for an application that proves what it asked."""

import asyncio
import base64
import hashlib
from uuid import uuid4

import httpx

from libs.common.auth import MEMBER
from libs.common.http.rates import FREE_GUESSES
from services.identity.api.pages import STYLE
from services.identity.domain.role import BUILT_IN, OWNER
from tests.integration.browsing import CALLBACK, CHALLENGE, Browser, answered, claims
from tests.shared.people import PASSWORD, holder, member_of

BAD_ADDRESSES = ("https://console.test/signed-in", f"{CALLBACK}&x=1", f"{CALLBACK}/", "https://evil.test/", "", "javascript:1")


async def test_a_member_signs_in_on_a_page_without_script_and_may_what_their_roles_and_the_application_allow_by_now(
    browser: Browser,
) -> None:
    member_id = await browser.joined("ada@shop.test", "support")
    page = await browser.open()
    assert (page.status_code, page.headers["content-type"].partition(";")[0]) == (200, "text/html")
    policy = page.headers["content-security-policy"]
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "form-action 'self' https://console.test" in policy
    assert "<script" not in page.text
    assert STYLE in page.text
    wrong = await browser.submit(page, "ada@shop.test", "not the password")
    assert (wrong.status_code, 'role="alert"' in wrong.text, 'value="ada@shop.test"' in wrong.text) == (422, True, True)
    sent_back = await browser.submit(wrong, "ADA@shop.test", PASSWORD)
    granted = (await browser.redeem(answered(sent_back)["code"])).json()
    told = claims(granted["access_token"])
    assert (told["sub"], told["client_id"], told["roles"]) == (str(member_id), browser.client_id, [MEMBER, "support"])
    assert set(told["scope"].split()) == BUILT_IN["support"] == set(granted["scope"].split())

    bearer = {"Authorization": f"Bearer {granted['access_token']}"}
    assert (await browser.client.get("/v1/members", headers=bearer)).status_code == 403, "support manages nobody"
    owner = await member_of(browser.shell, browser.desk, browser.tenant_id, OWNER)
    path = f"/v1/members/{member_id}"
    assert (await browser.ask(owner, "PATCH", path, roles=[OWNER])).status_code == 200
    renewed = (await browser.token(grant_type="refresh_token", refresh_token=granted["refresh_token"])).json()
    scope = set(claims(renewed["access_token"])["scope"].split())
    assert scope == BUILT_IN[OWNER] - {"provider-accounts:write"}, "an owner, as far as this application goes"
    bearer = {"Authorization": f"Bearer {renewed['access_token']}"}
    assert (await browser.client.get("/v1/members", headers=bearer)).status_code == 200
    assert (await browser.ask(owner, "PATCH", path, roles=["viewer"])).status_code == 200
    assert (await browser.client.get("/v1/members", headers=bearer)).status_code == 401, "what was taken away ended the token"
    again = (await browser.token(grant_type="refresh_token", refresh_token=renewed["refresh_token"])).json()
    assert set(again["scope"].split()) == BUILT_IN["viewer"]
    assert (await browser.ask(owner, "PATCH", path, state="deactivated")).status_code == 200
    refused = await browser.token(grant_type="refresh_token", refresh_token=again["refresh_token"])
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    shut_out = await browser.submit(await browser.open(), "ada@shop.test", PASSWORD)
    assert (shut_out.status_code, shut_out.text) == (422, wrong.text)


async def test_a_code_is_good_once_for_who_asked_for_it_with_what_they_asked_and_no_other_way(browser: Browser) -> None:
    await browser.joined("ada@shop.test", "viewer")
    code = await browser.code("ada@shop.test", scope="orders:read")
    wrong = [
        {"code_verifier": "w" * 43},
        {"code_verifier": CHALLENGE},
        {"redirect_uri": "https://console.test/signed-in"},
        {"code": code[:-1] + ("a" if code[-1] != "a" else "b")},
        {"code": code.replace(browser.tenant_id.hex, uuid4().hex)},
        {"client_id": f"cl_{browser.tenant_id.hex}_{uuid4().hex}"},
        {"client_id": f"cl_{uuid4().hex}_{uuid4().hex}"},
    ]
    told = set()
    for changes in wrong:
        answer = await browser.redeem(**{"code": code, **changes})
        told.add((answer.status_code, answer.text))
    came = await asyncio.gather(*(browser.redeem(code) for _ in range(4)))
    assert sorted(each.status_code for each in came) == [200, 400, 400, 400]
    told |= {(each.status_code, each.text) for each in came if each.status_code != 200}
    assert len(told) == 1, told
    [taken] = [each.json() for each in came if each.status_code == 200]
    assert claims(taken["access_token"])["scope"] == "orders:read"
    stolen = await browser.token(grant_type="refresh_token", refresh_token=taken["refresh_token"])
    assert stolen.status_code == 400, "a code that came twice ended what it was taken for"
    bearer = {"Authorization": f"Bearer {taken['access_token']}"}
    assert (await browser.client.get("/v1/sessions/current", headers=bearer)).status_code == 401
    late = await browser.code("ada@shop.test")
    admin = await browser.place.as_admin()
    await admin.execute("UPDATE authorization_code SET expires_at = now() WHERE session_id IS NULL")
    await admin.close()
    assert (await browser.redeem(late)).status_code == 400
    assert (await browser.client.post("/oauth/token", data={"grant_type": "password"})).json()[
        "error"
    ] == "unsupported_grant_type"


async def test_a_refresh_token_is_of_its_application_alone_and_a_shoppers_is_of_none(browser: Browser) -> None:
    await browser.joined("ada@shop.test", "viewer")
    granted = (await browser.redeem(await browser.code("ada@shop.test"))).json()
    for form in ({"client_id": "shopper"}, {"client_id": f"cl_{browser.tenant_id.hex}_{uuid4().hex}"}):
        refused = await browser.token(grant_type="refresh_token", refresh_token=granted["refresh_token"], **form)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant"), form
    renewed = await browser.token(grant_type="refresh_token", refresh_token=granted["refresh_token"])
    assert renewed.status_code == 200, "and asking wrongly has not used it up"
    owner = await member_of(browser.shell, browser.desk, browser.tenant_id, OWNER)
    assert (await browser.ask(owner, "DELETE", f"/v1/clients/{browser.client_id}")).status_code == 204
    gone = await browser.token(grant_type="refresh_token", refresh_token=renewed.json()["refresh_token"])
    assert gone.status_code == 400


async def test_nobody_is_sent_to_an_address_that_is_not_registered_and_every_other_fault_goes_to_the_one_that_is(
    browser: Browser,
) -> None:
    for address in BAD_ADDRESSES:
        refused = await browser.open(redirect_uri=address)
        assert (refused.status_code, refused.headers.get("location")) == (400, None), address
    for client_id in ("", "shopper", "platform", f"cl_{browser.tenant_id.hex}_{uuid4().hex}"):
        assert (await browser.open(client_id=client_id)).status_code == 400
    faults: list[tuple[dict[str, str | None], str]] = [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"scope": "tenants:manage"}, "invalid_scope"),
        ({"scope": "provider-accounts:write"}, "invalid_scope"),
        ({"scope": "x\x01"}, "invalid_scope"),
    ]
    for changes, error in faults:
        assert answered(await browser.open(**changes))["error"] == error, changes
    twice = f"/oauth/authorize?{httpx.QueryParams(browser.asked)}&state=other"
    assert (await browser.client.get(twice)).status_code in {400, 422}
    page = await browser.open(scope="orders:read")
    assert "s &amp; &lt;state&gt;" in page.text
    owner = holder(browser.tenant_id, uuid4(), OWNER)
    for address in (
        "http://console.test/",
        "https://u@console.test/",
        "https://console.test/#f",
        "https://console.test\\@evil.test/",
    ):
        made = await browser.ask(owner, "POST", "/v1/clients", name="n", scopes=["orders:read"], redirect_uris=[address])
        assert made.status_code == 422, address
    secret = await browser.ask(owner, "POST", f"/v1/clients/{browser.client_id}/secrets")
    assert secret.status_code == 409, "an application in a browser keeps no secret"


async def test_known_and_unknown_are_told_alike_and_whoever_guesses_waits_without_keeping_the_owner_out(browser: Browser) -> None:
    await browser.joined("ada@shop.test", "viewer")
    page = await browser.open()
    known = await browser.submit(page, "ada@shop.test", "not the password")
    unknown = await browser.submit(page, "bob@shop.test", "not the password")
    assert (known.status_code, known.text.replace("ada", "bob")) == (unknown.status_code, unknown.text)
    for _ in range(FREE_GUESSES - 1):
        await browser.submit(page, "ada@shop.test", "not the password")
    waits = await browser.submit(page, "ada@shop.test", PASSWORD)
    assert (waits.status_code, "Wait a minute" in waits.text) == (429, True)
    transport = httpx.ASGITransport(browser.client._transport.app, client=("192.0.2.7", 1))  # type: ignore[attr-defined]
    async with httpx.AsyncClient(transport=transport, base_url="http://service.test") as elsewhere:
        browser.client = elsewhere
        assert (await browser.submit(page, "ada@shop.test", PASSWORD)).status_code == 303


async def test_a_machines_token_is_not_to_be_had_with_an_application_that_people_sign_in_with(browser: Browser) -> None:
    for secret in ("", "x"):
        answer = await browser.token(grant_type="client_credentials", client_secret=secret)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
