"""Refresh tokens that a browser keeps for its shopper, where no script reaches them: in a cookie of the page's own address.

For pages that stand at the address of this API. A page from elsewhere is given no cookie by its browser (SameSite), and no
answer of ours lets it ask for one (origins.py): it takes the token in the answer, and keeps it as it can.
"""

from http.cookies import CookieError, SimpleCookie
from typing import Final, Literal
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import Response
from pydantic import BaseModel

from libs.common.errors import RejectedError
from libs.common.http.routes import Call, reply
from services.identity.api.issuer import Issuer, TokenAnswer
from services.identity.domain.session import LIFETIME

ANSWER: Final = "answer"
COOKIE: Final = "cookie"
Kept = Literal["answer", "cookie"]
PATH: Final = "/oauth/token"
"""A browser sends it here and nowhere else: no other service ever has it in a request."""


def name_of(tenant_id: UUID) -> str:
    """One for each shop: a browser may be at several."""
    return f"cartwright-{tenant_id.hex}"


def demand_page_here(call: Call) -> None:
    """Raise RejectedError if a browser asks for a page from elsewhere: one could make somebody a shopper who is somebody else.

    By what browsers say and pages cannot (Fetch Metadata; over plain HTTP, to other hosts, `Origin` alone). Programs say nothing.
    """
    site, origin = (call.request.headers.get(name) for name in ("sec-fetch-site", "origin"))
    is_here = (
        site == "same-origin" if site is not None else origin is None or urlsplit(origin).netloc == call.request.headers["host"]
    )
    if not is_here:
        raise RejectedError("invalid-request", "a cookie is for pages at this address; take the refresh token in the answer")


def read(call: Call, tenant_id: UUID) -> str | None:
    """The refresh token that the browser keeps for this shop."""
    try:
        cookies = SimpleCookie(call.request.headers.get("cookie", ""))
    except CookieError:
        return None
    found = cookies.get(name_of(tenant_id))
    return found.value if found is not None else None


def bounds_at(address: str) -> str:
    """What the browser is told of a cookie of ours: over TLS also that it goes over nothing else."""
    secure = "; Secure" if address.startswith("https://") else ""
    return f"Path={PATH}; Max-Age={int(LIFETIME.total_seconds())}; HttpOnly; SameSite=Strict{secure}"


def put(call: Call, status: int, answer: TokenAnswer, tenant_id: UUID) -> Response:
    """The answer with its refresh token in the cookie and not in the body, where scripts would read it."""
    cookie = f"{name_of(tenant_id)}={answer.refresh_token}; {bounds_at(call.service.shared(Issuer).address)}"
    body: BaseModel = answer.model_copy(update={"refresh_token": None})
    return reply(status, body, Cache_Control="no-store", Set_Cookie=cookie)
