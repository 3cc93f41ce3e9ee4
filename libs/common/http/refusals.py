"""What the security log is told of an error that a caller is answered with: most refusals say nothing about anybody."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from starlette.types import Scope

from libs.common.auth import InvalidTokenError, Principal
from libs.common.errors import (
    CartwrightError,
    DeniedError,
    ForeignError,
    MalformedError,
    NotFoundError,
    RejectedError,
    UnauthenticatedError,
)
from libs.common.http.reading import UNKEEPABLE
from libs.common.json_text import pointer_part
from libs.common.telemetry.security import SECURITY, Refused

THROTTLED = 429
MAX_ERRORS = 100
"""So many of what is wrong with a request are told."""
BY_KIND = ((UnauthenticatedError, Refused.TOKEN), (DeniedError, Refused.PERMISSION), (ForeignError, Refused.TENANT))
"""The first of these that an error is."""
BY_CODE = {
    "scope-not-grantable": Refused.PERMISSION,
    "invalid-scope": Refused.PERMISSION,
    "tenant-id-not-allowed": Refused.TENANT,
}
"""Refusals for what the caller is, though the request alone is to blame by its status."""


def note(error: BaseException, scope: Scope, route: str, principal: Principal | None) -> None:
    """Tell it of this error, if it is its business."""
    found = _refusal(error)
    if found is None:
        return
    event, reason = found
    known = {} if principal is None else {"subject": str(principal.subject), "client_id": principal.client_id}
    refused(event, reason, scope, route, tenant_id=principal.tenant_id if principal else None, **known)


def refused(event: Refused, reason: str, scope: Scope, route: str, *, tenant_id: UUID | None = None, **known: str) -> None:
    """Tell it of one refusal on a route."""
    client = scope.get("client")
    members = {"tenant_id": "" if tenant_id is None else str(tenant_id), "address": client[0] if client else "", "route": route}
    SECURITY.refused(event, reason, {**members, **known})


def _refusal(error: BaseException) -> tuple[Refused, str] | None:
    if not isinstance(error, CartwrightError):
        return None
    if error.status == THROTTLED:
        return Refused.THROTTLED, error.code
    reason = error.reason if isinstance(error, InvalidTokenError) else error.code
    event = next((event for kind, event in BY_KIND if isinstance(error, kind)), BY_CODE.get(error.code))
    return None if event is None else (event, reason)


async def refusal_of(errors: Sequence[Any], call: Any, unkeepable: Sequence[str]) -> CartwrightError:
    """What breaks a route's schema (`call`: `routes.Call`).

    404 for a path that cannot be an object of ours or is not the caller's, 400 for headers, 422 for the rest.
    """
    problems = [(tuple(map(str, each["loc"])), each["msg"]) for each in errors]
    if any(location[0] == "path" for location, _ in problems):
        return NotFoundError("not-found", "there is nothing here for you")
    if any(location[0] == "header" for location, _ in problems):
        return MalformedError("bad-header", "; ".join(f"{location[-1]}: {message}" for location, message in problems))
    if call.rule.sees is not None:
        await call.rule.sees(call)
    told = [{"pointer": pointer, "detail": UNKEEPABLE} for pointer in unkeepable] or [
        {"pointer": "/" + "/".join(map(pointer_part, location[1:])), "detail": message} for location, message in problems
    ]
    return RejectedError("schema", "the request breaks its schema; see errors", errors=told[:MAX_ERRORS])
