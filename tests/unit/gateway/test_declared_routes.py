"""What the gateway is made of: the services' routes, all of those that customers reach and none besides."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from deploy.composition import parts_of
from deploy.gateway.declared import FILE, Declared, committed, declared, text
from deploy.gateway.plan import Plan, Upstream
from deploy.gateway.routing import route_configuration
from libs.common.http.routes import Facing, Routes, guard
from services import SERVICES

ID = "018f3a2b-0000-7000-8000-000000000001"
PLAN = Plan({service: [Upstream("127.0.0.1", 1, 2)] for service in SERVICES}, Path("/gateway"), "127.0.0.1", 3, 4)


@cache
def _configured() -> dict[str, list[dict[str, Any]]]:
    """The routes by the beginning of their paths; those of no beginning under the empty one."""
    (host,) = route_configuration(PLAN, committed(), {})["virtual_hosts"]
    matcher = host["matcher"]
    found = matcher["matcher_tree"]["prefix_match_map"]["map"] | {"": matcher["on_no_match"]}
    return {name: each["action"]["typed_config"]["routes"] for name, each in found.items()}


def _sent(route: Declared) -> str:
    def value(found: re.Match[str]) -> str:
        return "books/a%2Fb" if found[2] else ID if found[1].endswith("id") else "a%2Fb"

    return re.sub(r"\{(\w+)(:path)?\}", value, route.path)


def _found(method: str, path: str, host: str = "shop") -> dict[str, Any]:
    """The first that fits, as Envoy looks for it."""
    longest = max((name for name in _configured() if path.startswith(name)), key=len)
    for route in _configured()[longest]:
        if _fits(route["match"], {":method": method, ":authority": host}, path):
            return route
    raise AssertionError(path)


def _fits(match: dict[str, Any], headers: dict[str, str], path: str) -> bool:
    place = (
        path == match["path"]
        if "path" in match
        else bool(re.fullmatch(match["safe_regex"]["regex"], path))
        if "safe_regex" in match
        else path.startswith(match["prefix"])
    )
    return place and all(_says(each, headers) for each in match.get("headers", ()))


def _says(asked: dict[str, Any], headers: dict[str, str]) -> bool:
    value, how = headers[asked["name"]], asked["string_match"]
    fits = value == how["exact"] if "exact" in how else bool(re.fullmatch(how["safe_regex"]["regex"], value))
    return fits is not asked.get("invert_match", False)


def _routes() -> Iterator[tuple[str, Any]]:
    return ((service, route) for service in SERVICES for route in parts_of(service).routes.routes)


def test_the_file_says_what_the_code_declares() -> None:
    assert FILE.read_text() == text()
    assert committed() == declared()


def test_every_route_faces_somebody_and_what_faces_operators_is_not_in_the_file() -> None:
    customers = {(service, route.path) for service, route in _routes() if route.facing is Facing.CUSTOMERS}
    operators = {(service, route.path) for service, route in _routes() if route.facing is Facing.OPERATORS}
    assert {(each.service, each.behind or each.path) for each in committed()} == customers
    assert operators
    assert all(path.startswith("/ops/") for _, path in operators)
    assert not any(path.startswith("/ops") for _, path in customers)


def test_a_collection_of_routes_that_faces_nobody_is_none() -> None:
    with pytest.raises(TypeError, match="facing"):
        Routes()  # type: ignore[call-arg] # what is proved


def test_under_ops_a_route_faces_operators_whatever_is_said() -> None:
    async def answer() -> Any:
        raise NotImplementedError

    routes = Routes(Facing.CUSTOMERS)
    routes.get("/ops/everything")(guard("ops:read", platform_only=True)(answer))
    assert [getattr(route, "facing", None) for route in routes.routes] == [Facing.OPERATORS]


@pytest.mark.parametrize("route", committed(), ids=lambda route: f"{route.method} {route.path}")
def test_each_is_found_by_its_method_and_path_and_by_no_other_method(route: Declared) -> None:
    path = _sent(route)
    found = _found(route.method, path)
    assert found["route"]["cluster"] == route.service
    assert found["name"] == f"{route.method} {route.path}"
    assert (found["route"]["timeout"] == "0s") is route.streams
    methods = {each.method for each in committed() if each.path == route.path}
    for other in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "HEAD"} - methods:
        refused = _found(other, path)
        assert refused.get("direct_response", {}).get("status") == 405 or refused["name"].startswith(f"{other} ")
    assert _found(route.method, path, host="a,b")["direct_response"]["status"] == 400


def test_a_path_that_every_service_has_is_reached_in_each() -> None:
    places = {service: "/v1/audit-entries" if service == "identity" else f"/v1/{service}-audit-entries" for service in SERVICES}
    for service, path in places.items():
        found = _found("GET", path)["route"]
        assert (found["cluster"], found.get("prefix_rewrite", path)) == (service, "/v1/audit-entries")


def test_only_reading_is_asked_twice_once_a_service_may_have_heard_it() -> None:
    for route in committed():
        retried = _found(route.method, _sent(route))["route"]["retry_policy"]["retry_on"].split(",")
        assert ("reset" in retried) is (route.method == "GET"), route
        assert ("reset-before-request" in retried) is (route.method == "GET" or route.idempotent), route


def test_strangers_are_counted_wherever_no_token_is_asked_for() -> None:
    for service, route in _routes():
        if route.facing is Facing.CUSTOMERS and route.rule.permission is None:
            assert {each.counted for each in committed() if (each.service, each.path) == (service, route.path)} == {"strangers"}
    begins = {(each.method, each.path) for each in committed() if each.counted == "beginners"}
    assert ("POST", "/v1/checkouts") in begins
