"""Sources that are paused, over HTTP: what operators see of them, pause and resume."""

from collections.abc import Sequence
from typing import Any, Protocol
from uuid import UUID

from starlette.requests import Request

from libs.common.auth import Verifier
from libs.common.errors import MalformedError, NotFoundError
from libs.common.http.operator import READ, REPAIR, OperatorRoute, body_of, reason_of
from libs.common.origin import Origin


class Sources(Protocol):
    """The sources of one consumer group."""

    async def listing(self) -> list[dict[str, Any]]:
        """Every source that is paused or catching up."""

    async def pause(self, tenant_id: UUID | None, name: str, *, actor: Origin, reason: str) -> dict[str, Any]:
        """Hold back whatever comes of it."""

    async def resume(self, tenant_id: UUID | None, name: str, *, actor: Origin, reason: str, skip: bool) -> dict[str, Any]:
        """Decide what was held back, or give it up; and go on."""


def source_routes(groups: Sequence[Sources], verifier: Verifier) -> list[OperatorRoute]:
    """The routes under `/ops/sources`."""

    async def show(_: Request, __: Origin) -> dict[str, Any]:
        return {"items": [each for group in groups for each in await group.listing()]}

    async def pause(request: Request, operator: Origin) -> dict[str, Any]:
        body = await body_of(request)
        (tenant_id, name), reason = _named(body), reason_of(body.get("reason", ""))
        return {"paused": [await group.pause(tenant_id, name, actor=operator, reason=reason) for group in groups]}

    async def resume(request: Request, operator: Origin) -> dict[str, Any]:
        body = await body_of(request)
        (tenant_id, name), reason, skip = _named(body), reason_of(body.get("reason", "")), body.get("skip", False)
        if not isinstance(skip, bool):
            raise MalformedError("bad-request", "skip is true or false")
        resumed, missing = [], None
        for group in groups:
            try:
                resumed.append(await group.resume(tenant_id, name, actor=operator, reason=reason, skip=skip))
            except NotFoundError as error:
                missing = error
        if missing is not None and not resumed:
            raise missing
        return {"resumed": resumed}

    return [
        OperatorRoute("/ops/sources", "GET", READ, verifier, show),
        OperatorRoute("/ops/sources/pause", "POST", REPAIR, verifier, pause),
        OperatorRoute("/ops/sources/resume", "POST", REPAIR, verifier, resume),
    ]


def _named(body: dict[str, Any]) -> tuple[UUID | None, str]:
    tenant_id, name = body.get("tenant_id"), body.get("source")
    if not isinstance(name, str):
        raise MalformedError("bad-source", "name the source as its envelope does")
    try:
        return (None if tenant_id is None else UUID(str(tenant_id))), name
    except ValueError as error:
        raise MalformedError("bad-request", "tenant_id is a UUID, or left out") from error
