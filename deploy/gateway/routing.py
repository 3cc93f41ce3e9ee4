"""Which request goes where: the virtual host of all that is declared, and what is answered here to all that is not."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from deploy.gateway.declared import Declared
from deploy.gateway.limits import counting
from deploy.gateway.pages import FOLDERS, page_routes
from deploy.gateway.plan import Plan

NAME: Final = "customers"

ANSWER_SECONDS: Final = 45
"""For a whole answer: the longest `Prefer: wait` is 30 s. A stream has no end but its own."""

_TRICKS: Final = r"(?i)(.*(//|/(\.|%2e){1,2}(/|;|$)|\\|%5c|%00|%0[ad]|;).*)|[^/].*"
"""What two readers of a path take differently: dots and slashes that lead elsewhere, however they are written."""

_UNSENT: Final = "connect-failure,refused-stream"
"""No service has seen it."""
_RETRIED: Final[Mapping[bool, Mapping[bool, str]]] = {
    True: {False: f"{_UNSENT},reset-before-request,reset", True: f"{_UNSENT},reset-before-request,reset"},
    False: {False: _UNSENT, True: f"{_UNSENT},reset-before-request"},
}
"""By whether it reads, and whether it carries an `Idempotency-Key`."""
_READING: Final = frozenset({"GET", "HEAD"})


def route_configuration(plan: Plan, routes: Sequence[Declared], folders: Mapping[str, Path] = FOLDERS) -> dict[str, Any]:
    """All of it, as Envoy has it."""
    found = [_refused(400, {"safe_regex": {"regex": _TRICKS}})]
    for path, same in groupby(routes, key=lambda each: each.path):
        found += _of_path(plan, path, [*same])
    found += page_routes(folders)
    found.append(_refused(404, {"prefix": "/"}))
    host = {"name": NAME, "domains": ["*"], "routes": found}
    return {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": NAME,
        "virtual_hosts": [host],
        "max_direct_response_body_size_bytes": 2_000_000,
        "ignore_port_in_host_matching": True,
    }


def _of_path(plan: Plan, path: str, routes: Sequence[Declared]) -> Iterator[dict[str, Any]]:
    first = routes[0]
    for each in routes:
        yield _routed(plan, each)
    methods = {each.method for each in routes}
    yield {**_asked(first, "OPTIONS"), "route": _to(first, is_reading=True)}
    yield _refused(405, _place(first), allow=", ".join(sorted(methods)), name=path)


def _routed(plan: Plan, route: Declared) -> dict[str, Any]:
    found = {**_asked(route, route.method), "route": _to(route, is_reading=route.method in _READING)}
    limit = counting(plan.limits, route)
    return {**found, "typed_per_filter_config": limit} if limit else found


def _to(route: Declared, *, is_reading: bool) -> dict[str, Any]:
    return {
        "cluster": route.service,
        "timeout": "0s" if route.streams else f"{ANSWER_SECONDS}s",
        **({"prefix_rewrite": route.behind} if route.behind and not route.expression else {}),
        "retry_policy": {
            "retry_on": _RETRIED[is_reading][route.idempotent],
            "num_retries": 2,
            "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                    },
                }
            ],
            "host_selection_retry_max_attempts": 3,
        },
    }


def _asked(route: Declared, method: str) -> dict[str, Any]:
    headers = [{"name": ":method", "string_match": {"exact": method}}]
    return {"name": f"{method} {route.path}", "match": {**_place(route), "headers": headers}}


def _place(route: Declared) -> dict[str, Any]:
    return {"safe_regex": {"regex": route.expression}} if route.expression else {"path": route.path}


def _refused(status: int, place: Mapping[str, Any], *, allow: str = "", name: str = "") -> dict[str, Any]:
    """Answered here; what the answer says, the listener's mapping has."""
    headers = [{"header": {"key": "allow", "value": allow}}] if allow else []
    return {
        "name": name or str(status),
        "match": dict(place),
        "direct_response": {"status": status},
        **({"response_headers_to_add": headers} if headers else {}),
    }


def paths(routes: Iterable[Declared]) -> set[str]:
    """Every path that leads to a service."""
    return {each.path for each in routes}
