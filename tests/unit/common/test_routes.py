from collections.abc import Callable, Coroutine, Iterator
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Body, Cookie, Depends, Request, Response

from deploy.composition import parts_of
from libs.common.auth import PERMISSIONS
from libs.common.http.reading import headers_of
from libs.common.http.routes import Caller, Facing, GuardedRoute, Routes, UndeclaredPermissionError, guard, public
from libs.common.processes.api import api_app
from services import SERVICES

PUBLIC = {
    ("identity", "/.well-known/jwks.json"),
    ("identity", "/.well-known/oauth-authorization-server"),
    ("identity", "/oauth/authorize"),
    ("identity", "/oauth/token"),
    ("identity", "/oauth/revoke"),
    ("identity", "/oauth/introspect"),
    ("identity", "/v1/invitations/accept"),
    ("identity", "/v1/password-resets"),
    ("identity", "/v1/password-resets/confirm"),
    ("identity", "/v1/sessions"),
    ("identity", "/v1/storefronts/{slug}"),
    ("checkout", "/v1/order-lookups"),
    ("payments", "/v1/webhooks/stripe"),
    ("payments", "/v1/webhooks/stripe/{tenant_id}"),
}
"""Every route that anybody may call."""
OWN = {("identity", f"/v1/sessions{rest}") for rest in ("/current", "/{session_id}")} | {
    ("identity", f"/v1/second-factors{rest}") for rest in ("", "/confirm", "/recovery-codes", "/remove")
}
"""Every route for whoever has a token, about what is theirs: it takes no permission."""


def _flat(router: Any) -> Iterator[Any]:
    """The routes of a router and of those it includes."""
    for route in router.routes:
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        if inner is None:
            yield route
        else:
            yield from _flat(inner)


def endpoint() -> Callable[[], Coroutine[Any, Any, Response]]:
    """An endpoint that has declared nothing yet."""

    async def answer() -> Response:
        return Response()

    return answer


def test_a_route_that_declares_no_permission_keeps_its_service_from_starting() -> None:
    with pytest.raises(UndeclaredPermissionError, match=r"/v1/forgotten \(.*answer\) declares no permission"):
        Routes(Facing.CUSTOMERS).get("/v1/forgotten")(endpoint())


async def _sent_away(call: Caller) -> None:
    raise NotImplementedError


def _not_awaited(call: Caller) -> None:
    raise NotImplementedError


async def _takes_the_request(call: Caller, request: Request) -> Response:
    return Response(repr((call, request)))


async def _takes_a_cookie(crumb: Annotated[str, Cookie()]) -> Response:
    return Response(crumb)


async def _takes_two_bodies(first: Annotated[str, Body()], second: Annotated[str, Body()]) -> Response:
    return Response(first + second)


async def _takes_a_part_of_a_body(part: Annotated[str, Body(embed=True)]) -> Response:
    return Response(part)


async def _works_afterwards(tasks: BackgroundTasks) -> Response:
    return Response(background=tasks)


async def _depends_on_a_thread(made: Annotated[None, Depends(_not_awaited)]) -> Response:
    return Response(repr(made))


def _blocks() -> Response:
    return Response()


@pytest.mark.parametrize(
    "wanting",
    [
        _takes_the_request,
        _takes_a_cookie,
        _takes_two_bodies,
        _takes_a_part_of_a_body,
        _works_afterwards,
        _depends_on_a_thread,
        _blocks,
    ],
)
def test_an_endpoint_that_asks_for_what_it_would_never_be_given_keeps_its_service_from_starting(wanting: Any) -> None:
    with pytest.raises(TypeError, match=wanting.__name__ if wanting is not _depends_on_a_thread else "_not_awaited"):
        Routes(Facing.CUSTOMERS).post("/v1/wanting")(public(wanting))


def test_what_stands_before_a_route_without_a_name_is_refused_and_not_left_out() -> None:
    with pytest.raises(TypeError):
        Routes(Facing.CUSTOMERS).post("/v1/wanting", dependencies=[Depends(_sent_away)])(public(endpoint()))


def test_the_routes_of_a_part_are_taken_as_they_are_or_not_at_all() -> None:
    part, whole = Routes(Facing.CUSTOMERS), Routes(Facing.CUSTOMERS)
    part.get("/v1/things")(public(endpoint()))
    whole.include_router(part)
    assert whole.routes == part.routes
    with pytest.raises(TypeError):
        whole.include_router(part, prefix="/v2")


def test_of_a_header_sent_twice_the_first_counts() -> None:
    assert headers_of({"headers": [(b"authorization", b"Bearer 1"), (b"x", b""), (b"authorization", b"Bearer 2")]}) == {
        b"authorization": b"Bearer 1",
        b"x": b"",
    }


def test_a_route_that_declares_one_or_that_it_is_public_is_told_of_in_the_services_document() -> None:
    routes = Routes(Facing.CUSTOMERS)
    routes.get("/v1/things")(guard("carts:read")(endpoint()))
    routes.post("/v1/things")(guard("carts:write", idempotent=True)(endpoint()))
    routes.get("/v1/open")(public(endpoint()))
    paths = api_app("test", routes).openapi()["paths"]
    assert paths["/v1/things"]["get"]["security"] == [{"bearer": ["carts:read"]}]
    assert paths["/v1/things"]["post"]["x-idempotency-key"] == "required"
    assert paths["/v1/open"]["get"]["security"] == []


@pytest.mark.parametrize("service", SERVICES)
def test_every_route_of_every_service_is_guarded_by_a_permission_that_exists(service: str) -> None:
    routes = parts_of(service).routes
    guarded = [route for route in _flat(routes) if isinstance(route, GuardedRoute)]
    assert guarded
    assert len(guarded) == len(list(_flat(routes))), "a route that no guard stands before"
    for route in guarded:
        permission = route.rule.permission
        assert permission in PERMISSIONS or (permission is None and (service, route.path) in PUBLIC | OWN), route.path
        assert route.rule.instead in {None, *PERMISSIONS}
    documented = api_app(service, routes).openapi()["paths"]
    assert {route.path_format for route in guarded} == set(documented)
    for route in guarded:
        for method in route.methods or ():
            security = documented[route.path_format][method.lower()].get("security", [])
            demanded = [{"bearer": [each]} for each in (route.rule.permission, route.rule.instead) if each]
            assert route.rule.permission is None or security == demanded
