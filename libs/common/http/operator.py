"""What the platform's operators may repair, over HTTP, in every process: parked messages and projections, of all tenants.

Whoever has a tenant is turned away, whatever a token says; a tenant repairs its own by its service's `api` (`parked.py`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Protocol
from uuid import UUID

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from libs.common.auth import Verifier, bearer
from libs.common.errors import MalformedError, RejectedError
from libs.common.http.asking import origin_of
from libs.common.http.problem import make_private, problem_of
from libs.common.http.reading import NOTHING, UNKEEPABLE, headers_of, instance_of, read_json, request_id_of, unkeepable_query
from libs.common.http.refusals import note
from libs.common.messaging.repairs import FIRST, ParkedMessages, Place, place_of
from libs.common.origin import Origin

READ, REPAIR = "ops:read", "ops:repair"
MAX_PAGE = 200

MAX_DIGITS = 3
MAX_REASON = 1_000

Endpoint = Callable[[Request, Origin], Awaitable[dict[str, Any]]]
"""It is told who asks, for the audit trail."""


class OperatorRoute(Route):
    """A route for operators of the platform who have a permission, and for nobody else."""

    platform_only = True

    def __init__(self, path: str, method: str, permission: str, verifier: Verifier, endpoint: Endpoint) -> None:
        self.permission = permission
        super().__init__(path, _guarded(path, verifier, permission, endpoint), methods=[method])


class Rebuilds(Protocol):
    """Rebuilds projections; only a worker can."""

    async def rebuild(self, name: str, *, actor: Origin) -> dict[str, Any]:
        """Rebuild one projection and say what came of it."""


class Parked(Protocol):
    """One kind of messages that wait for a decision."""

    async def show(self, parked_id: str) -> dict[str, Any]:
        """One message whole."""

    async def replay(self, parked_id: str, *, actor: Origin) -> dict[str, Any]:
        """Try again, and what waits behind it."""

    async def discard(self, parked_id: str, *, actor: Origin, reason: str) -> dict[str, Any]:
        """Give it up."""


class OutboxParked(Parked, Protocol):
    """Events that the broker refused; only a worker sees them."""

    async def search(
        self, *, state: str | None, type_: str | None, tenant_id: UUID | None, reason: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """What waits."""


def repair_routes(
    parked: ParkedMessages,
    verifier: Verifier,
    rebuilds: Rebuilds | None = None,
    outbox: OutboxParked | None = None,
    apart: Mapping[str, ParkedMessages] = MappingProxyType({}),
) -> list[OperatorRoute]:
    """What operators ask under `/ops`. What other consumer groups parked has ids that begin with their name."""

    def of(request: Request) -> tuple[Parked, str]:
        return _named(request.path_params["id"], parked, outbox, apart)

    def route(path: str, method: str, permission: str, endpoint: Endpoint) -> OperatorRoute:
        return OperatorRoute(path, method, permission, verifier, endpoint)

    async def search(request: Request, _: Origin) -> dict[str, Any]:
        return await _search(parked, outbox, apart, request)

    async def show(request: Request, _: Origin) -> dict[str, Any]:
        kind, parked_id = of(request)
        return await kind.show(parked_id)

    async def replay(request: Request, operator: Origin) -> dict[str, Any]:
        kind, parked_id = of(request)
        return await kind.replay(parked_id, actor=operator)

    async def discard(request: Request, operator: Origin) -> dict[str, Any]:
        reason = reason_of((await body_of(request)).get("reason", ""))
        kind, parked_id = of(request)
        return await kind.discard(parked_id, actor=operator, reason=reason)

    async def actions(request: Request, _: Origin) -> dict[str, Any]:
        return {"items": await parked.actions(limit=_limit(request))}

    routes = [
        route("/ops/parked-messages", "GET", READ, search),
        route("/ops/parked-messages/{id}", "GET", READ, show),
        route("/ops/parked-messages/{id}/replay", "POST", REPAIR, replay),
        route("/ops/parked-messages/{id}/discard", "POST", REPAIR, discard),
        route("/ops/actions", "GET", READ, actions),
    ]
    if rebuilds is not None:

        async def rebuild(request: Request, operator: Origin) -> dict[str, Any]:
            return await rebuilds.rebuild(request.path_params["name"], actor=operator)

        routes.append(route("/ops/projections/{name}/rebuild", "POST", REPAIR, rebuild))
    return routes


def _named(
    parked_id: str, parked: ParkedMessages, outbox: OutboxParked | None, apart: Mapping[str, ParkedMessages]
) -> tuple[Parked, str]:
    """Who has a message parked, and by which id."""
    group, _, rest = parked_id.partition(":")
    if group in apart:
        return apart[group], rest
    return (outbox, parked_id) if outbox is not None and group == "outbox" else (parked, parked_id)


def _guarded(path: str, verifier: Verifier, permission: str, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def guarded(request: Request) -> Response:
        principal, request_id = None, request_id_of(headers_of(request.scope))
        try:
            principal = await verifier.verify(bearer(request.headers.get("authorization")))
            principal.demand(permission, of_platform=True)
            _demand_keepable(unkeepable_query(request.scope["query_string"]))
            response = Response(
                orjson.dumps(await endpoint(request, origin_of(principal, request.scope, request_id))),
                media_type="application/json",
            )
            response.headers["x-request-id"] = request_id
            make_private(response)
            return response  # noqa: TRY300 - whatever it raises, making it is part of answering
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the edge turns whatever it is into a problem
            note(error, request.scope, path, principal)
            return problem_of(error, request_id=request_id, instance=instance_of(request.scope), scope=permission)

    return guarded


async def _search(
    parked: ParkedMessages, outbox: OutboxParked | None, apart: Mapping[str, ParkedMessages], request: Request
) -> dict[str, Any]:
    query, limit = request.query_params, _limit(request)
    try:
        tenant_id = UUID(query["tenant_id"]) if "tenant_id" in query else None
    except ValueError as error:
        raise MalformedError("bad-query", "tenant_id is a UUID") from error
    state, type_, reason, source, cursor = (query.get(name) for name in ("state", "type", "reason", "source", "cursor"))
    if any("\0" in (each or "") for each in (state, type_, reason, source, cursor)):
        raise MalformedError("bad-query", "no text of a query holds a zero byte")
    after = place_of(cursor)

    filters: dict[str, Any] = {"state": state, "type_": type_, "tenant_id": tenant_id, "reason": reason}

    async def found_by(where: ParkedMessages, after: Place, most: int) -> list[dict[str, Any]]:
        return await where.search(source=source, after=after, limit=most, **filters)

    found = await found_by(parked, after, limit + 1)
    if len(found) > limit:
        return {"items": found[:limit], "next_cursor": found[limit - 1]["id"]}
    # What the service's other groups parked, and events that the broker refused, come on the last page; never many.
    for group, theirs in apart.items():
        found += [{**each, "id": f"{group}:{each['id']}"} for each in await found_by(theirs, FIRST, MAX_PAGE)]
    ours = None if source else outbox
    refused = await ours.search(**filters, limit=MAX_PAGE) if ours else []
    return {"items": [*found, *refused], "next_cursor": None}


def _limit(request: Request) -> int:
    limit = request.query_params.get("limit", "50")
    if not limit.isdecimal() or len(limit) > MAX_DIGITS or not 1 <= int(limit) <= MAX_PAGE:
        raise MalformedError("bad-query", f"limit is 1 to {MAX_PAGE}")
    return int(limit)


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object that was sent; an empty one when nothing was."""
    body, found = await read_json(headers_of(request.scope), request.receive)
    _demand_keepable(found)
    if body is NOTHING:
        return {}
    if not isinstance(body, dict):
        raise MalformedError("not-json", "the body is a JSON object")
    return body


def reason_of(given: object) -> str:
    """The reason that an operator gives."""
    if not isinstance(given, str) or len(given) > MAX_REASON:
        raise MalformedError("bad-reason", f"reason is text of at most {MAX_REASON} characters")
    return given


def _demand_keepable(pointers: Iterable[str]) -> None:
    if errors := [{"pointer": pointer, "detail": UNKEEPABLE} for pointer in pointers]:
        raise RejectedError("schema", "the request breaks its schema; see errors", errors=errors)
