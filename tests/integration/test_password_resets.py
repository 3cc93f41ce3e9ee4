"""Passwords that are chosen anew: by whoever reads the member's letters, once, and nobody hears who is a member."""

import asyncio
from uuid import UUID, uuid4

import httpx
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from libs.common.shared import Shared
from services.identity.api.desk import Desk
from services.identity.api.issuer import Issuer
from services.identity.api.letters import Letters
from tests.integration.browsing import Browser, answered
from tests.shared.callers import problem
from tests.shared.letters import opened
from tests.shared.people import PASSWORD
from tests.shared.signing import MASTER_KEY

ADA, ANOTHER = "ada@shop.test", "another long password"
WRITER = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def writing(browser: Browser) -> Browser:
    """The same house, with somebody who writes its letters."""
    letters = Letters.read(orjson.dumps(ECAlgorithm.to_jwk(WRITER.public_key(), as_dict=True)).decode())
    service = browser.client._transport.app.state.service  # type: ignore[attr-defined]
    browser.desk = Desk(MASTER_KEY, letters, shows_tokens=True)
    service.shared = Shared((service.shared(Issuer), browser.desk))
    return browser


async def ask(browser: Browser, tenant: str, email: str) -> httpx.Response:
    return await browser.client.post("/v1/password-resets", json={"tenant": tenant, "email": email})


async def confirm(browser: Browser, token: str, password: str = ANOTHER) -> httpx.Response:
    return await browser.client.post("/v1/password-resets/confirm", json={"token": token, "password": password})


async def letters_to(browser: Browser, member_id: UUID) -> list[str]:
    """The tokens that were written, the oldest first."""
    admin = await browser.place.as_admin()
    rows = await admin.fetch(
        """SELECT convert_from(payload, 'UTF8') AS told FROM outbox_event
        WHERE topic = 'password-reset.v1' AND tenant_id = $1 ORDER BY id""",
        browser.tenant_id,
    )
    await admin.close()
    told = [orjson.loads(row["told"]) for row in rows]
    return [opened(each["letter"], WRITER)["token"] for each in told if each["member_id"] == str(member_id)]


async def aged(browser: Browser, member_id: UUID, by: str) -> None:
    admin = await browser.place.as_admin()
    await admin.execute(f"UPDATE password_reset SET asked_at = asked_at - interval '{by}' WHERE member_id = $1", member_id)
    await admin.close()


async def test_a_new_password_ends_all_that_the_old_one_began_and_its_token_is_good_once(writing: Browser) -> None:
    member_id = await writing.joined(ADA, "viewer")
    code, unused = await writing.code(ADA), await writing.code(ADA)
    granted = (await writing.redeem(code)).json()
    for email in (ADA.upper(), ADA, "nobody@shop.test"):
        asked = await ask(writing, str(writing.tenant_id), email)
        assert (asked.status_code, asked.content) == (202, b"")
    [token] = await letters_to(writing, member_id)  # who asks again in the same minute is not written to twice
    await aged(writing, member_id, "2 minutes")
    await ask(writing, str(writing.tenant_id), ADA)
    [_, newest] = await letters_to(writing, member_id)
    elsewhere = newest.replace(writing.tenant_id.hex, uuid4().hex)
    somebody = newest.replace(member_id.hex, (await writing.joined("bob@shop.test", "viewer")).hex)
    refusals = [await confirm(writing, each) for each in (token, elsewhere, somebody, newest[:-1], "x", f"{newest[:-1]}-")]
    came = await asyncio.gather(*(confirm(writing, newest) for _ in range(6)))
    assert sorted(each.status_code for each in came) == [204, *[422] * 5]
    refusals += [each for each in came if each.status_code != 204]
    refusals.append(await confirm(writing, newest))
    told = {(each.status_code, problem(each)["code"], problem(each)["detail"]) for each in refusals}
    assert told == {(422, "password-reset-not-valid", "this link is not valid; ask for another")}

    bearer = {"Authorization": f"Bearer {granted['access_token']}"}
    assert (await writing.client.get("/v1/sessions/current", headers=bearer)).status_code == 401
    refreshed = await writing.token(grant_type="refresh_token", refresh_token=granted["refresh_token"])
    assert (refreshed.status_code, refreshed.json()["error"]) == (400, "invalid_grant")
    assert (await writing.redeem(unused)).status_code == 400, "a code that the old password got is over too"
    assert (await writing.submit(await writing.open(), ADA, PASSWORD)).status_code == 422
    signed_in = await writing.submit(await writing.open(), ADA, ANOTHER)
    assert (await writing.redeem(answered(signed_in)["code"])).status_code == 200
    admin = await writing.place.as_admin()
    entries = await admin.fetch(
        "SELECT actor, object_kind FROM audit_entry WHERE tenant_id = $1 AND action = 'reset-password'", writing.tenant_id
    )
    await admin.close()
    assert {tuple(each) for each in entries} == {("", kind) for kind in ("member", "password-reset", "session", "epoch")}


async def test_a_token_is_over_after_an_hour_and_no_letter_goes_to_whoever_may_not_come_in(writing: Browser) -> None:
    member_id = await writing.joined(ADA, "viewer")
    await ask(writing, str(writing.tenant_id), ADA)
    [token] = await letters_to(writing, member_id)
    await aged(writing, member_id, "1 hour")
    assert (await confirm(writing, token)).status_code == 422
    admin = await writing.place.as_admin()
    slug = await admin.fetchval("SELECT slug FROM tenant WHERE tenant_id = $1", writing.tenant_id)
    await ask(writing, slug, ADA)
    assert len(await letters_to(writing, member_id)) == 2, "a shop's people know its name"
    await aged(writing, member_id, "2 minutes")
    await admin.execute("UPDATE member SET state = 'deactivated' WHERE id = $1", member_id)
    await admin.close()
    for tenant, email in ((slug, ADA), ("no-such-shop", ADA), (str(uuid4()), ADA)):
        asked = await ask(writing, tenant, email)
        assert (asked.status_code, asked.content) == (202, b"")
    [_, newest] = await letters_to(writing, member_id)
    assert (await confirm(writing, newest)).status_code == 422, "and who was sent one before does not come in with it"
