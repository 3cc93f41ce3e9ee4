"""A tenant's staff on real processes: from the owner's invitation to what a colleague may nowhere any more."""

import base64
import hashlib
import re
from functools import partial
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import aiohttp
import pytest

from deploy.cli.tenants import Wish, onboarded, operator
from services.identity.domain.role import BUILT_IN, OWNER
from tests.shared.doors import is_believed, is_refused
from tests.shared.market import Market

pytestmark = pytest.mark.asyncio(loop_scope="session")

CALLBACK = "http://localhost:5173/signed-in"
PASSWORD = "correct horse battery staple"
VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


class Console:
    """A tenant's application that people sign in with, and a browser in front of it."""

    def __init__(self, market: Market, client_id: str) -> None:
        self._market = market
        self._client_id = client_id
        self._address = market.stack.description().services["identity"].url

    @classmethod
    async def of(cls, market: Market, tenant_id: str) -> "Console":
        body = {"name": "Console", "scopes": sorted(BUILT_IN[OWNER]), "tenant_id": tenant_id, "redirect_uris": [CALLBACK]}
        token = await operator(market.api).token()
        made = await market.api.call("identity", "POST", "/v1/clients", token=token, body=body, key=uuid4().hex)
        return cls(market, made.body["client_id"])

    async def sign_in(self, email: str) -> dict[str, Any]:
        """Open the page, send its form, follow where it leads, and take the code for tokens."""
        asked = {"response_type": "code", "client_id": self._client_id, "redirect_uri": CALLBACK, "state": "s"}
        asked |= {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{self._address}/oauth/authorize", params=asked) as page:
                hidden = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', await page.text())
            form = {unescape(name): unescape(value) for name, value in hidden} | {"email": email, "password": PASSWORD}
            async with session.post(f"{self._address}/oauth/authorize", data=form, allow_redirects=False) as answer:
                assert answer.status == 303, await answer.text()
                told = parse_qs(urlsplit(answer.headers["Location"]).query)
            assert told["iss"] == [self._market.stack.description().services["identity"].url]
            proof = {"redirect_uri": CALLBACK, "code_verifier": VERIFIER, "client_id": self._client_id}
            return await self._token(session, grant_type="authorization_code", code=told["code"][0], **proof)

    async def refresh(self, granted: dict[str, Any]) -> dict[str, Any]:
        form = {"grant_type": "refresh_token", "refresh_token": granted["refresh_token"], "client_id": self._client_id}
        async with aiohttp.ClientSession() as session:
            return await self._token(session, **form)

    async def _token(self, session: aiohttp.ClientSession, **form: str) -> dict[str, Any]:
        async with session.post(f"{self._address}/oauth/token", data=form) as answer:
            told: dict[str, Any] = await answer.json()
            return told


async def _accept(market: Market, token: str) -> dict[str, Any]:
    body = {"token": token, "password": PASSWORD, "name": "Ada"}
    return dict((await market.api.call("identity", "POST", "/v1/invitations/accept", body=body)).body)


async def _joined(market: Market, owner: dict[str, Any], email: str, role: str) -> dict[str, Any]:
    body = {"email": email, "roles": [role]}
    asked = await market.api.call("identity", "POST", "/v1/invitations", token=owner["access_token"], body=body, key=uuid4().hex)
    return await _accept(market, asked.body["token"])


async def test_a_colleague_is_let_in_and_is_refused_at_every_door_when_it_is_taken_away(market: Market) -> None:
    made = await onboarded(market.api, Wish.of("staffed", admin="ada@staffed.test"))
    again = await onboarded(market.api, Wish.of("staffed", admin="ada@staffed.test"))
    assert made.owner == again.owner
    assert made.owner is not None
    assert (made.owner["email"], made.owner["roles"]) == ("ada@staffed.test", [OWNER])
    await _accept(market, made.owner["token"])
    assert (await onboarded(market.api, Wish.of("staffed", admin="ada@staffed.test"))).owner is None, "she has come"

    console = await Console.of(market, str(made.tenant_id))
    owner = await console.sign_in("ada@staffed.test")
    assert set(owner["scope"].split()) == BUILT_IN[OWNER]
    colleague = await _joined(market, owner, "bob@staffed.test", "finance")
    path = f"/v1/members/{colleague['id']}"

    async def changed(**body: Any) -> None:
        """Change the colleague, or remove them if nothing is said."""
        token, method = owner["access_token"], "PATCH" if body else "DELETE"
        await market.api.call("identity", method, path, token=token, body=body or None)

    granted = await console.sign_in("bob@staffed.test")
    takes: list[dict[str, Any]] = [{"roles": ["viewer"]}, {"state": "deactivated"}, {}]
    for body in takes:
        assert await is_believed(market, granted["access_token"])
        await changed(**body)
        await market.until(partial(is_refused, market, granted["access_token"]))
        assert await is_believed(market, owner["access_token"]), "and nobody else's token ended"
        if body == {"state": "deactivated"}:
            assert (await console.refresh(granted))["error"] == "invalid_grant"
            await changed(state="active")
            granted = await console.sign_in("bob@staffed.test")
        elif body:
            granted = await console.refresh(granted)
            assert set(granted["scope"].split()) == BUILT_IN["viewer"]
    gone = await console.refresh(granted)
    assert gone["error"] == "invalid_grant"
