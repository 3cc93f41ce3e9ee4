"""A member's browser at the log-in page of their tenant's application, on a real edge."""

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID, uuid4

import httpx
import jwt
import pytest

from libs.common.messaging.shell import Shell
from libs.common.shared import Shared
from services.identity.api.desk import Desk
from services.identity.domain.role import BUILT_IN, OWNER
from tests.shared.callers import ISSUER, Person, edge
from tests.shared.people import PASSWORD, desk, invited, member_of
from tests.shared.places import Place, Places
from tests.shared.signing import issuer_of
from tests.shared.victims import tenant_of

CALLBACK = "https://console.test/signed-in?here=1"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


@dataclass
class Browser:
    """Somebody at the page of a tenant's application."""

    place: Place
    client: httpx.AsyncClient
    shell: Shell
    desk: Desk
    tenant_id: UUID
    client_id: str = ""
    asked: dict[str, str] = field(default_factory=dict)

    async def open(self, **changes: str | None) -> httpx.Response:
        query = {name: value for name, value in {**self.asked, **changes}.items() if value is not None}
        return await self.client.get("/oauth/authorize", params=query)

    async def submit(self, page: httpx.Response, email: str, password: str) -> httpx.Response:
        """Send the page's own form, as a browser would."""
        hidden = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page.text)
        form = {unescape(name): unescape(value) for name, value in hidden}
        return await self.client.post("/oauth/authorize", data={**form, "email": email, "password": password})

    async def show(self, page: httpx.Response, code: str) -> httpx.Response:
        """Send the form of the second step with a code."""
        hidden = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page.text)
        form = {unescape(name): unescape(value) for name, value in hidden}
        return await self.client.post("/oauth/authorize", data={**form, "code": code})

    async def token(self, **form: str) -> httpx.Response:
        return await self.client.post("/oauth/token", data={"client_id": self.client_id, **form})

    async def redeem(self, code: str, **changes: str) -> httpx.Response:
        proof = {"redirect_uri": CALLBACK, "code_verifier": VERIFIER}
        return await self.token(grant_type="authorization_code", code=code, **{**proof, **changes})

    async def code(self, email: str, **changes: str | None) -> str:
        answer = await self.submit(await self.open(**changes), email, PASSWORD)
        assert answer.status_code == 303, answer.text
        return answered(answer)["code"]

    async def joined(self, email: str, *roles: str) -> UUID:
        _, token = await invited(self.shell, self.desk, self.tenant_id, email, *roles)
        body = {"token": token, "password": PASSWORD, "name": "Ada"}
        return UUID((await self.client.post("/v1/invitations/accept", json=body)).json()["id"])

    async def ask(self, who: Person, method: str, path: str, **body: Any) -> httpx.Response:
        headers = {**who.authorization, "Idempotency-Key": uuid4().hex}
        return await self.client.request(method, path, headers=headers, json=body)


def answered(answer: httpx.Response) -> Mapping[str, str]:
    """What the application is told: at its own address, with what it sent along and who says so."""
    place = answer.headers["location"]
    assert place.startswith(f"{CALLBACK}&")
    told = dict(parse_qsl(urlsplit(place).query))
    assert (told["state"], told["iss"]) == ("s & <state>", ISSUER)
    return told


def claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


@pytest.fixture
async def browser(shared: Places) -> AsyncIterator[Browser]:
    place = shared("identity")
    async with edge(place) as (client, shell):
        taking_in, tenant_id = desk(), await tenant_of(shell, "identity")
        app = client._transport.app  # type: ignore[attr-defined]
        app.state.service.shared = Shared((await issuer_of(shell, app.state.service.verifier), taking_in))
        owner = await member_of(shell, taking_in, tenant_id, OWNER)
        browser = Browser(place, client, shell, taking_in, tenant_id)
        scopes = sorted(BUILT_IN[OWNER] - {"provider-accounts:write"})
        made = await browser.ask(owner, "POST", "/v1/clients", name="Console", scopes=scopes, redirect_uris=[CALLBACK])
        assert (made.status_code, "client_secret" in made.json()) == (201, False), made.text
        browser.client_id = made.json()["client_id"]
        browser.asked = {
            "response_type": "code",
            "client_id": browser.client_id,
            "redirect_uri": CALLBACK,
            "state": "s & <state>",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        }
        yield browser
