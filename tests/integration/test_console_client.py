"""The console's own client: in every tenant, in nobody's table, and answered where the console is and nowhere else."""

from services.identity.domain.client import client_id_of
from services.identity.domain.console import CONSOLE
from services.identity.domain.role import BUILT_IN, OWNER
from tests.integration.browsing import CALLBACK, Browser, claims

PAGES = "https://shop.test/console/"


def _at_the_console(browser: Browser) -> None:
    browser.client_id = client_id_of(browser.tenant_id, CONSOLE)
    browser.asked |= {"client_id": browser.client_id}


async def test_staff_sign_in_with_the_console_for_what_their_roles_allow_and_only_where_it_is(browser: Browser) -> None:
    _at_the_console(browser)
    await browser.joined("ada@shop.test", "support")
    assert (await browser.open()).status_code == 400, "here is no console"
    browser.desk.consoles = (PAGES, CALLBACK)
    for elsewhere in ("https://evil.test/console/", PAGES[:-1], f"{PAGES}?x=1"):
        assert (await browser.open(redirect_uri=elsewhere)).status_code == 400, elsewhere
    granted = (await browser.redeem(await browser.code("ada@shop.test"))).json()
    told = claims(granted["access_token"])
    assert (told["client_id"], set(told["scope"].split())) == (browser.client_id, {*BUILT_IN["support"]})
    renewed = await browser.token(grant_type="refresh_token", refresh_token=granted["refresh_token"])
    assert (renewed.status_code, set(renewed.json()["scope"].split())) == (200, {*BUILT_IN["support"]})


async def test_an_owner_invites_an_owner_from_the_console_which_is_nobodys_to_change(browser: Browser) -> None:
    _at_the_console(browser)
    browser.desk.consoles = (CALLBACK,)
    await browser.joined("ada@shop.test", OWNER)
    granted = (await browser.redeem(await browser.code("ada@shop.test"))).json()
    headers = {"Authorization": f"Bearer {granted['access_token']}", "Idempotency-Key": "once"}
    asked = {"email": "grace@shop.test", "roles": [OWNER]}
    invited = await browser.client.post("/v1/invitations", headers=headers, json=asked)
    assert invited.status_code == 201, invited.text
    its = f"/v1/clients/{browser.client_id}"
    for method, path in (("GET", its), ("DELETE", its), ("POST", f"{its}/secrets")):
        assert (await browser.client.request(method, path, headers=headers)).status_code == 404, path
