"""Pages of other hosts that may ask us (CORS): those that a tenant names in its settings, for that tenant alone.

Never `*`, and never with cookies: ours are for pages at our own address. A browser asks first, without a token (preflight);
that is answered for whoever any tenant names. Whether it may read the answer is decided by the token's tenant.
"""

from typing import Any
from uuid import UUID

from starlette.responses import Response

from libs.common.choices import Choices
from libs.common.http.reading import Headers, header

METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
TAKEN = b"Authorization, Content-Type, Idempotency-Key, Prefer, If-Match, If-None-Match, Last-Event-ID, traceparent, X-Request-Id"
SHOWN = (
    b"ETag, Location, Retry-After, RateLimit, RateLimit-Policy, Idempotent-Replayed, Preference-Applied, X-Request-Id, "
    b"WWW-Authenticate"
)
REMEMBERED_SECONDS = b"600"
VARY = (b"vary", b"Origin")


def origin_of(headers: Headers) -> str | None:
    """The page's, if a browser says that it is another's than ours."""
    return header(headers, b"origin")


def preflight(choices: Choices, headers: Headers) -> Response | None:
    """The answer to a browser that asks whether a page may ask. None: it asks no such thing."""
    origin = origin_of(headers)
    if origin is None or header(headers, b"access-control-request-method") is None:
        return None
    response = Response(status_code=204)
    response.raw_headers.append((b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"))
    if choices.is_anybodys(origin):
        response.raw_headers += [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", TAKEN),
            (b"access-control-max-age", REMEMBERED_SECONDS),
        ]
    return response


def named_tenant(body: Any) -> UUID | None:
    """The tenant that a stranger's request names: what they ask for is of its shop."""
    try:
        return UUID(body["tenant_id"]) if isinstance(body, dict) and isinstance(body.get("tenant_id"), str) else None
    except ValueError:
        return None


def show(response: Response, choices: Choices, headers: Headers, tenant_id: UUID | None) -> None:
    """Let the page read this answer, if the tenant whose it is names it."""
    origin = origin_of(headers)
    if origin is None:
        return
    response.raw_headers.append(VARY)
    if tenant_id is not None and choices.lets_in(tenant_id, origin):
        response.raw_headers += [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", SHOWN),
        ]
