"""Second factors on a real database: each code is good once, also when many show it at once, and nobody comes in around it."""

import asyncio
import base64
import re
from uuid import UUID, uuid4

import httpx
import pytest

from libs.common.auth import CLIENT
from libs.common.clock import new_id, now
from libs.common.errors import RejectedError
from libs.common.http.rates import FREE_GUESSES
from services.identity.domain.role import OWNER
from services.identity.domain.second_factor import Shown, code_of, digest_of, step_at
from services.identity.handlers import IssueCode, RenewRecoveryCodes
from tests.integration.browsing import CALLBACK, CHALLENGE, Browser, answered
from tests.shared.callers import Person, decided, message, problem
from tests.shared.people import PASSWORD, holder, member_of

ADA = "ada@shop.test"
PLACE = "/v1/second-factors"


class App:
    """An authenticator app, which remembers the moment it was given its secret: its codes are of that moment, not of now."""

    def __init__(self, secret: str) -> None:
        self.secret = base64.b32decode(secret)
        self.step = step_at(now())

    def code(self, later: int = 0) -> str:
        """The code of so many steps later. That of the next is good for a minute more, at the least."""
        return code_of(self.secret, self.step + later)


async def enrolled(browser: Browser, member_id: UUID) -> tuple[Person, App, list[str]]:
    """Somebody with a second factor that works, their app and their recovery codes."""
    ada = holder(browser.tenant_id, member_id, "viewer")
    begun = await browser.ask(ada, "POST", PLACE)
    assert begun.status_code == 201, begun.text
    app = App(begun.json()["secret"])
    assert f"secret={begun.json()['secret']}&" in begun.json()["uri"]
    assert begun.json()["qr_svg"].startswith("<svg xmlns=")
    confirmed = await browser.ask(ada, "POST", f"{PLACE}/confirm", code=app.code())
    assert confirmed.status_code == 200, confirmed.text
    return ada, app, confirmed.json()["recovery_codes"]


async def test_a_member_has_one_second_factor_whose_codes_are_good_once_and_removes_it_with_one(browser: Browser) -> None:
    ada, app, recovery = await enrolled(browser, await browser.joined(ADA, "viewer"))
    assert (await browser.client.get(PLACE, headers=ada.authorization)).json() == {"state": "active", "recovery_codes_left": 10}
    assert len({*recovery}) == 10
    assert (await browser.ask(ada, "POST", PLACE)).status_code == 409, "a stolen token does not put another in its place"
    told = set()
    for code in (app.code(), app.code(9), app.code(-9), "no code", "aaaa-aaaa-aaaa-aaaa"):
        answer = await browser.ask(ada, "POST", f"{PLACE}/remove", code=code)
        told.add((answer.status_code, problem(answer)["code"]))
    assert told == {(422, "second-factor-refused")}
    many = await asyncio.gather(*(browser.ask(ada, "POST", f"{PLACE}/recovery-codes", code=app.code(1)) for _ in range(6)))
    assert sorted(each.status_code for each in many) == [200, *[422] * 5]
    [renewed] = [each.json()["recovery_codes"] for each in many if each.status_code == 200]
    assert (await browser.ask(ada, "POST", f"{PLACE}/remove", code=recovery[0])).status_code == 422, "those before are no more"
    admin = await browser.place.as_admin()
    row = str(await admin.fetchrow("SELECT * FROM second_factor WHERE member_id = $1", ada.subject))
    await admin.close()
    for kept in (base64.b32encode(app.secret).decode(), app.secret.hex(), *renewed):
        assert kept not in row
    assert (await browser.ask(ada, "POST", f"{PLACE}/remove", code=renewed[3].upper())).status_code == 204
    assert (await browser.client.get(PLACE, headers=ada.authorization)).json()["state"] == "none"
    assert answered(await browser.submit(await browser.open(), ADA, PASSWORD))["code"]
    machine = await browser.ask(Person(browser.tenant_id, role=CLIENT), "POST", PLACE)
    assert machine.status_code == 404, "a machine has none"


@pytest.mark.parametrize("kind", ["code", "recovery code"])
async def test_of_twenty_who_show_the_same_code_at_once_one_succeeds(browser: Browser, kind: str) -> None:
    ada, app, recovery = await enrolled(browser, await browser.joined(ADA, "viewer"))
    admin = await browser.place.as_admin()
    enrolment = await admin.fetchval("SELECT enrolment FROM second_factor WHERE member_id = $1", ada.subject)
    await admin.close()
    step = app.step + 1 if kind == "code" else None
    shown = Shown(enrolment=enrolment, step=step, digest=digest_of(ada.subject, recovery[0] if step is None else "none"))
    kept = tuple(digest_of(ada.subject, code) for code in recovery)
    command = RenewRecoveryCodes(member_id=ada.subject, shown=shown, recovery=kept[1:])
    came = await asyncio.gather(
        *(decided(lambda: browser.shell.execute(message(command, browser.tenant_id))) for _ in range(20)), return_exceptions=True
    )
    refused = [each for each in came if isinstance(each, RejectedError)]
    assert (len(refused), {each.code for each in refused}) == (19, {"second-factor-refused"})
    assert [each for each in came if isinstance(each, BaseException) and each not in refused] == []
    spent = await browser.ask(ada, "POST", f"{PLACE}/remove", code=app.code(1) if kind == "code" else recovery[0])
    assert spent.status_code == 422


async def test_signing_in_asks_for_a_code_after_the_password_and_takes_each_once(browser: Browser) -> None:
    _, app, recovery = await enrolled(browser, await browser.joined(ADA, "viewer"))
    await browser.joined("bob@shop.test", "viewer")
    asked = await browser.submit(await browser.open(), ADA, PASSWORD)
    assert (asked.status_code, "location" in asked.headers, 'name="code"' in asked.text) == (200, False, True)
    assert "<script" not in asked.text
    wrong = await browser.show(asked, "000000")
    used = await browser.show(wrong, app.code())
    assert (wrong.status_code, used.status_code, 'role="alert"' in wrong.text) == (422, 422, True)
    assert _words(wrong) == _words(used), "wrong and used are one"
    came = await asyncio.gather(*(browser.show(asked, app.code(1)) for _ in range(5)))
    assert sorted(each.status_code for each in came) == [303, *[422] * 4]
    [let_in] = [each for each in came if each.status_code == 303]
    assert (await browser.redeem(answered(let_in)["code"])).status_code == 200
    assert (await browser.show(asked, recovery[4])).status_code == 303
    assert (await browser.show(asked, recovery[4])).status_code == 422
    for ticket in ("", "x", "x.9.y", f"{uuid4().hex}.99999999999.{'0' * 64}", re.sub("[0-9]", "1", _ticket(asked))):
        over = await browser.client.post("/oauth/authorize", data={**browser.asked, "ticket": ticket, "code": recovery[5]})
        assert (over.status_code, 'name="password"' in over.text) == (422, True), ticket
    for _ in range(FREE_GUESSES):
        last = await browser.show(asked, "000000")
    held_up = await browser.show(asked, recovery[6])
    assert (last.status_code, held_up.status_code) == (429, 429), "guesses are counted by member, wherever they come from"
    assert answered(await browser.submit(await browser.open(), "bob@shop.test", PASSWORD))["code"]


async def test_where_the_tenant_requires_it_nobody_comes_in_without_one_and_the_page_leads_to_it(browser: Browser) -> None:
    member_id = await browser.joined(ADA, "viewer")
    owner = await member_of(browser.shell, browser.desk, browser.tenant_id, OWNER)
    chosen = await browser.ask(owner, "PATCH", f"/v1/tenants/{browser.tenant_id}", settings={"require_totp": True})
    assert chosen.json()["settings"] == {"require_totp": True}
    led = await browser.submit(await browser.open(), ADA, PASSWORD)
    assert (led.status_code, "<svg" in led.text, "<script" not in led.text) == (200, True, True)
    [secret] = re.findall(r"<code>([A-Z2-7]{32})</code>", led.text)
    admin = await browser.place.as_admin()
    password = await admin.fetchval("SELECT password FROM member WHERE id = $1", member_id)
    await admin.close()
    around = IssueCode(
        code_id=new_id(),
        digest="d",
        member_id=member_id,
        client_id=browser.client_id,
        redirect_uri=CALLBACK,
        challenge=CHALLENGE,
        scopes=(),
        password=password,
    )
    with pytest.raises(RejectedError, match="not right"):
        await browser.shell.execute(message(around, browser.tenant_id))
    app, wrong = App(secret), await browser.show(led, "000000")
    assert (wrong.status_code, secret in wrong.text) == (422, True), "the same secret, which the app has by now"
    kept = await browser.show(wrong, app.code())
    recovery = re.findall(r"<li><code>([a-z2-7-]{19})</code></li>", kept.text)
    assert (kept.status_code, len({*recovery}), secret in kept.text) == (200, 10, False)
    assert (await browser.show(kept, app.code())).status_code == 422, "the code that confirmed it is used"
    assert answered(await browser.show(kept, app.code(1)))["code"]
    again = await browser.submit(await browser.open(), ADA, PASSWORD)
    assert ("<svg" in again.text, 'name="code"' in again.text) == (False, True)
    assert (await browser.ask(owner, "DELETE", f"/v1/members/{member_id}")).status_code == 204
    assert (await browser.show(again, recovery[0])).status_code == 422
    admin = await browser.place.as_admin()
    left = await admin.fetchrow("SELECT state, sealed_secret, recovery FROM second_factor WHERE member_id = $1", member_id)
    await admin.close()
    assert tuple(left) == ("removed", None, "[]"), "of who is removed nothing stays to come in with"


def _ticket(page: httpx.Response) -> str:
    [ticket] = re.findall(r'name="ticket" value="([^"]*)"', page.text)
    return str(ticket)


def _words(page: httpx.Response) -> str:
    return page.text.replace(_ticket(page), "")
