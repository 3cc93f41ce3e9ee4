"""The page a 3-D Secure challenge is held on: two buttons where a bank would ask for a code."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from deploy.local.fake_stripe import intents
from deploy.local.fake_stripe.endpoints.call import new_id
from deploy.local.fake_stripe.form import pairs_of
from deploy.local.fake_stripe.records import Intent, Status

if TYPE_CHECKING:
    from deploy.local.fake_stripe.accounts import Account
    from deploy.local.fake_stripe.fake import Fake

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>3-D Secure test page</title>
<style>:root {{ color-scheme: light dark }} body {{ font: 1.1rem system-ui; max-width: 32rem; margin: 4rem auto }}
button {{ font: inherit; padding: .7rem 1rem; margin: 0 .5rem .5rem 0 }}</style></head>
<body><h1>3-D Secure test page</h1><p>{what}</p>
<form method="post">
<button name="outcome" value="succeed">Complete authentication</button>
<button name="outcome" value="fail">Fail authentication</button>
</form></body></html>
"""
_DONE = "<!doctype html><title>Authentication</title><p>Authentication {outcome}. You can close this page.</p>"


def routes(fake: Fake) -> list[Route]:
    """Return the page's routes."""

    async def challenge(request: Request) -> Response:
        found = find_intent(fake, request.path_params["id"])
        if found is None or request.query_params.get("client_secret") != found[1].client_secret:
            return HTMLResponse("<!doctype html><p>There is no such payment.</p>", 404)
        account, intent = found
        if intent.status is not Status.REQUIRES_ACTION:
            return HTMLResponse(_DONE.format(outcome="is not asked for (any more)"), 409)
        if request.method == "GET":
            what = escape(f"A payment of {intent.amount} {intent.currency} (minor units) asks for authentication.")
            return HTMLResponse(_PAGE.format(what=what))
        passed = dict(pairs_of(await request.body())).get("outcome") == "succeed"
        authenticate(fake, account, intent, passed=passed)
        return _back(account.intents.get(intent.id), intent, passed=passed)

    return [Route("/redirect/authenticate/{id}", challenge, methods=["GET", "POST"])]


def find_intent(fake: Fake, intent_id: str) -> tuple[Account, Intent] | None:
    """Find an intent in whichever account it lies: who follows a link has no key."""
    for account in fake.books.accounts():
        if (intent := account.intents.find(intent_id)) is not None:
            return account, intent
    return None


def authenticate(fake: Fake, account: Account, intent: Intent, *, passed: bool) -> None:
    """End the challenge of an intent."""
    now = fake.now()
    occasion = intents.Occasion(now=now, new_id=new_id)
    fake.books.record(account, intents.authenticate(intent, passed=passed, occasion=occasion), None, at=now)


def _back(after: Intent, before: Intent, *, passed: bool) -> Response:
    """Lead the buyer back to where the confirmation said, as Stripe does; without a way back, Stripe.js would close a frame."""
    back = before.challenge.return_url if before.challenge else None
    if back is None:
        return HTMLResponse(_DONE.format(outcome="succeeded" if passed else "failed"))
    paid = after.status not in {Status.REQUIRES_PAYMENT_METHOD, Status.REQUIRES_ACTION}
    query = urlencode(
        {
            "payment_intent": after.id,
            "payment_intent_client_secret": after.client_secret,
            "redirect_status": "succeeded" if paid else "failed",
        }
    )
    address, mark, fragment = back.partition("#")
    joint = "&" if "?" in address else "?"
    return RedirectResponse(f"{address}{joint}{query}{mark}{fragment}", 303)
