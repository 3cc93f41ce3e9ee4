"""A tenant's staff, all of it at once at the page where it signs in."""

import asyncio
import base64
import hashlib
import secrets
import time
from collections import Counter
from typing import Any, Final
from uuid import UUID, uuid4

import aiohttp

from deploy.cli.api import Api
from deploy.cli.tenants import operator

AT_ONCE: Final = 200
_EMAIL: Final = "staff@loud.test"
_ANSWERED_AT: Final = "https://console.loud.test/signed-in"
_PAUSE_SECONDS: Final = 1.0
"""What whoever is asked to come again is told to wait."""


async def signing_in(api: Api, tenant_id: UUID, seconds: float) -> dict[str, Any]:
    """Sign in, again and again, two hundred at a time; answers how often it was answered how."""
    form = await _form(api, tenant_id)
    answers, end = Counter[int](), time.monotonic() + seconds
    url = f"{api.stack.url('identity')}/oauth/authorize"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as session, asyncio.TaskGroup() as group:

        async def member() -> None:
            while time.monotonic() < end:
                async with session.post(url, data=form, allow_redirects=False) as answer:
                    answers[answer.status] += 1
                if not answer.ok:
                    await asyncio.sleep(_PAUSE_SECONDS)

        for _ in range(AT_ONCE):
            group.create_task(member())
    return {"at_once": AT_ONCE, "answers": dict(sorted(answers.items()))}


async def _form(api: Api, tenant_id: UUID) -> dict[str, str]:
    """What a browser sends for a member, to an application; both are new."""
    token, password = await operator(api).token(), secrets.token_urlsafe(16)

    async def made(path: str, **body: Any) -> dict[str, Any]:
        reply = await api.call("identity", "POST", path, token=token, body=body, key=uuid4().hex)
        answered: dict[str, Any] = reply.body
        return answered

    tenant = str(tenant_id)
    application = await made(
        "/v1/clients", tenant_id=tenant, name="Console", scopes=["orders:read"], redirect_uris=[_ANSWERED_AT]
    )
    invited = await made("/v1/invitations", tenant_id=tenant, email=_EMAIL, roles=["viewer"])
    await made("/v1/invitations/accept", token=invited["token"], password=password, name="Staff")
    challenge = base64.urlsafe_b64encode(hashlib.sha256(secrets.token_bytes()).digest()).rstrip(b"=").decode()
    return {
        "response_type": "code",
        "client_id": application["client_id"],
        "redirect_uri": _ANSWERED_AT,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "email": _EMAIL,
        "password": password,
    }
