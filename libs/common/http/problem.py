"""Errors as RFC 9457 `application/problem+json`."""

import asyncio
from typing import Any

import asyncpg
import orjson
import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from libs.common.database import passes_by_itself
from libs.common.errors import CartwrightError, MalformedError, UnauthenticatedError, UnavailableError
from libs.common.http.titles import MEDIA_TYPE, TITLES
from libs.common.sensitive import all_without_sensitive

log = structlog.get_logger(__name__)


INSUFFICIENT = frozenset({"permission-missing", "platform-only"})
"""Why a caller who is known is turned away for what their token may."""


def challenge(status: int, code: str, scope: str) -> str | None:
    """What a token must be like to get in (RFC 6750 §3); None where none would. `scope`: what the route asks for."""
    if status == UnauthenticatedError.status:
        error = "invalid_token" if code == "invalid-token" else ""
    elif code in INSUFFICIENT:
        error = "insufficient_scope"
    else:
        return None
    attributes = ", ".join(f'{name}="{value}"' for name, value in (("error", error), ("scope", scope)) if value)
    return f"Bearer {attributes}".rstrip()


def problem(status: int, code: str, detail: str, *, request_id: str, instance: str, scope: str = "", **members: Any) -> Response:
    """A problem document as a response. `scope` is the permission that the route asks for, if it asks for one."""
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Request-Id": request_id}
    retry_after = members.pop("retry_after", 1 if status in {429, 503} else None)
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    asked = challenge(status, code, scope)
    if asked is not None:
        headers["WWW-Authenticate"] = asked
    body = {
        "type": f"urn:cartwright:problem:{code}",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "instance": instance,
        "code": code,
        "request_id": request_id,
        **members,
    }
    return Response(orjson.dumps(all_without_sensitive(body)), status_code=status, headers=headers, media_type=MEDIA_TYPE)


def make_private(response: Response) -> None:
    """Have nobody keep an answer that is for one caller, nor take it for what it does not say it is."""
    if not any(name == b"cache-control" for name, _ in response.raw_headers):
        response.raw_headers.append((b"cache-control", b"no-store"))
    response.raw_headers.append((b"x-content-type-options", b"nosniff"))


def problem_of(error: BaseException, *, request_id: str, instance: str, scope: str = "") -> Response:
    """What a caller is told of this error. Only our own errors say anything; the rest is logged and kept inside."""
    if isinstance(error, asyncio.CancelledError):
        error = UnavailableError("leaving", "this process leaves before it could answer; send the same request again")
    if isinstance(error, ClientDisconnect):
        error = MalformedError("incomplete", "the request ended before it was whole")
    if passes_by_itself(error) and not isinstance(error, CartwrightError):
        log.warning("request.dependency_away", error=f"{type(error).__name__}: {error}", request_id=request_id)
        error = UnavailableError("dependency-unavailable", "something this needs does not answer; try again shortly")
    if isinstance(error, CartwrightError):
        said = error.status, error.code, error.detail
        return problem(*said, request_id=request_id, instance=instance, scope=scope, **error.members)
    kind = "database" if isinstance(error, asyncpg.PostgresError) else "unexpected"
    log.error("request.failed", kind=kind, request_id=request_id, instance=instance, exc_info=error)
    return problem(500, "internal", "this is our fault; tell us the request_id", request_id=request_id, instance=instance)
