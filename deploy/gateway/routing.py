"""Which request goes where: the virtual host of all that is declared, and what is answered here to all that is not."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from deploy.gateway.declared import Declared
from deploy.gateway.limits import counting
from deploy.gateway.pages import FOLDERS, page_routes
from deploy.gateway.plan import Plan
from deploy.gateway.tokens import asked

NAME: Final = "customers"
_INPUT: Final = "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
_LIST: Final = "type.googleapis.com/envoy.config.route.v3.RouteList"

ANSWER_SECONDS: Final = 45
"""For a whole answer: the longest `Prefer: wait` is 30 s. A stream has no end but its own."""

_TRICKS: Final = r"(?i)(.*(//|/(\.|%2e){1,2}(/|;|$)|\\|%5c|%00|%0[ad]|;).*)|[^/].*"
"""What two readers of a path take differently: dots and slashes that lead elsewhere, however they are written."""

_HOST: Final = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_NO_HOST: Final = {"name": ":authority", "string_match": {"safe_regex": {"regex": _HOST}}, "invert_match": True}
"""Two in one among them, which Envoy would join."""

_UNSENT: Final = "connect-failure,refused-stream"
"""No service has seen it."""
_RETRIED: Final[Mapping[bool, Mapping[bool, str]]] = {
    True: {False: f"{_UNSENT},reset-before-request,reset", True: f"{_UNSENT},reset-before-request,reset"},
    False: {False: _UNSENT, True: f"{_UNSENT},reset-before-request"},
}
"""By whether it reads, and whether it carries an `Idempotency-Key`."""
_ADDRESS: Final = {
    "header": {"key": "x-forwarded-for", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"},
    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
}
"""The one address that is certain. Envoy's own way writes another in the place of the loopback's."""
_READING: Final = frozenset({"GET", "HEAD"})


def route_configuration(plan: Plan, routes: Sequence[Declared], folders: Mapping[str, Path] = FOLDERS) -> dict[str, Any]:
    """All of it, as Envoy has it: a tree by the beginning of the path, since to look at each route in turn costs too much."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, same in groupby(routes, key=lambda each: each.path):
        groups.setdefault(beginning(path), []).extend(_of_path(plan, path, [*same]))
    matcher = {
        "matcher_tree": {
            "input": {"name": "path", "typed_config": {"@type": _INPUT, "header_name": ":path"}},
            "prefix_match_map": {"map": {name: _list(name, found) for name, found in groups.items()}},
        },
        "on_no_match": _list("pages", [*page_routes(folders)]),
    }
    return {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": NAME,
        "virtual_hosts": [{"name": NAME, "domains": ["*"], "matcher": matcher}],
        "request_headers_to_add": [_ADDRESS],
        "response_headers_to_add": [{"header": {"key": name, "value": value}} for name, value in _secured(plan).items()],
        "max_direct_response_body_size_bytes": 2_000_000,
        "ignore_port_in_host_matching": True,
    }


def beginning(path: str) -> str:
    """The part of a path by which it is found: its first two segments, as far as nothing in them is a parameter."""
    return "/".join(path.partition("{")[0].rstrip("/").split("/")[:3])


def _list(name: str, routes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What may be meant by a path that begins like this; the first that fits, after all that is refused whatever it is."""
    tricks, no_host = _refused(400, {"safe_regex": {"regex": _TRICKS}}), _refused(400, {"prefix": "/", "headers": [_NO_HOST]})
    listed = [tricks, no_host, *routes, _refused(404, {"prefix": "/"})]
    return {"action": {"name": name, "typed_config": {"@type": _LIST, "routes": listed}}}


def _secured(plan: Plan) -> dict[str, str]:
    """What a browser is to remember of a gateway with certificates."""
    secured = {"strict-transport-security": "max-age=31536000"} if plan.certificates else {}
    return secured | ({"alt-svc": f'h3=":{plan.port}"; ma=86400'} if plan.has_http3 else {})


def _of_path(plan: Plan, path: str, routes: Sequence[Declared]) -> Iterator[dict[str, Any]]:
    first = routes[0]
    for each in routes:
        yield _routed(plan, each)
    methods = {each.method for each in routes}
    yield {**_for(first, "OPTIONS"), "route": _to(first, is_reading=True)}
    yield _refused(405, _place(first), allow=", ".join(sorted(methods)), name=path)


def _routed(plan: Plan, route: Declared) -> dict[str, Any]:
    found = {**_for(route, route.method), "route": _to(route, is_reading=route.method in _READING)}
    more = counting(plan.limits, route) | asked(plan, route)
    return {**found, "typed_per_filter_config": more} if more else found


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


def _for(route: Declared, method: str) -> dict[str, Any]:
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
