"""Stripe Connect's OAuth: a page on which any account says yes, and the exchange of the code it gives."""

from __future__ import annotations

from html import escape
from secrets import token_hex
from typing import TYPE_CHECKING

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from deploy.local.fake_stripe.form import pairs_of

if TYPE_CHECKING:
    from deploy.local.fake_stripe.fake import Fake

LIFETIME_SECONDS = 300
_PAGE = (
    "<!doctype html><title>Connect</title><p>The test account {account} says yes. Complete with state and code:</p><p>{code}</p>"
)


def new_code(fake: Fake, account: str | None = None) -> tuple[str, str]:
    """Let an account, or a new one, say yes; returns its name and the code, which is good once and not for long."""
    code, account = f"ac_{token_hex(16)}", account or f"acct_{token_hex(8)}"
    fake.codes[code] = (account, fake.now() + LIFETIME_SECONDS)
    return account, code


def routes(fake: Fake) -> list[Route]:
    """Return the routes of what Stripe serves at its own address for this."""

    async def authorize(request: Request) -> Response:
        if request.query_params.get("response_type") != "code" or not request.query_params.get("state"):
            return HTMLResponse("<!doctype html><p>response_type is code, and there is a state.</p>", 400)
        account, code = new_code(fake)
        return HTMLResponse(_PAGE.format(account=escape(account), code=escape(code)))

    async def token(request: Request) -> Response:
        form = dict(pairs_of(await request.body()))
        key = form.get("client_secret") or request.headers.get("authorization", "").removeprefix("Bearer ")
        if not key.startswith("sk_test_"):
            return _refused("invalid_client", "No such API key", 401)
        if form.get("grant_type") != "authorization_code":
            return _refused("unsupported_grant_type", "grant_type is authorization_code")
        account, good_until = fake.codes.pop(form.get("code", ""), ("", 0))
        if fake.now() >= good_until:
            return _refused("invalid_grant", "Authorization code does not exist, is expired, or has been used")
        granted = {"stripe_user_id": account, "livemode": False, "scope": "read_write", "token_type": "bearer"}
        return Response(orjson.dumps(granted), media_type="application/json")

    return [Route("/oauth/authorize", authorize), Route("/oauth/token", token, methods=["POST"])]


def _refused(error: str, description: str, status: int = 400) -> Response:
    body = orjson.dumps({"error": error, "error_description": description})
    return Response(body, status, media_type="application/json")
