"""A service's OpenAPI document: FastAPI's, with what our routes do besides, so that clients generated from it work.

Nothing of it is written by hand for one route. A guard says who may and what is demanded; what an endpoint reads of a request and
says in its headers stands in its code, and is found there: the names that it uses, and that the functions use which it calls.
"""

import dis
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import CodeType, FunctionType
from typing import Any, Final

from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from libs.common.http import openapi_parts as parts
from libs.common.http.openapi_schemas import renamed, told
from libs.common.http.routes import READING, GuardedRoute

HEADERS: Final[Mapping[str, Sequence[str]]] = {
    "ETag": ("ETag",),
    "Location": ("Location",),
    "Preference-Applied": ("applied",),
    "Retry-After": ("Retry_After",),
}
"""The headers of an answer, each with the names by which code gives it."""
METHODS: Final = frozenset({"get", "put", "post", "delete", "patch"})


def document(name: str, version: str, routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The OpenAPI document of these routes, which are one service's."""
    title = f"Cartwright {name}"
    guarded = {
        (route.path_format, method.lower()): route
        for route in routes
        if isinstance(route, GuardedRoute)
        for method in route.methods or ()
    }
    made = get_openapi(title=title, version=version, routes=routes, description=parts.ABOUT, license_info=parts.LICENSE)
    made["servers"] = [{"url": "/", "description": "Where this document comes from"}]
    for path, operations in made.get("paths", {}).items():
        for method in METHODS & operations.keys():
            complete(operations[method], guarded[path, method], name, path, method)
    components = made.setdefault("components", {})
    components["schemas"] = parts.SCHEMAS | components.get("schemas", {})
    components |= {"securitySchemes": parts.SECURITY, "headers": parts.HEADERS}
    components |= {"parameters": parts.PARAMETERS, "responses": parts.RESPONSES}
    about = {_tag(path): _about(route.endpoint) for (path, _), route in reversed(guarded.items())}
    made["tags"] = [{"name": tag, "description": about[tag]} for tag in sorted(about)]
    return renamed(told(made))


def operations_of(made: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every operation of a document."""
    for operations in made.get("paths", {}).values():
        yield from (operations[method] for method in operations if method in METHODS)


def complete(operation: dict[str, Any], route: GuardedRoute, service: str, path: str, method: str) -> None:
    """Say of one operation what FastAPI does not know of it."""
    names = reached(route.endpoint)
    operation["operationId"] = _named(route.endpoint, service)
    operation["summary"] = operation["operationId"].replace("_", " ").capitalize()
    operation["tags"] = [_tag(path)]
    operation.setdefault("security", [])
    parameters = operation.setdefault("parameters", [])
    parameters += [{"$ref": f"#/components/parameters/{each}"} for each in _asked(route, names)]
    if not parameters:
        del operation["parameters"]
    responses = operation["responses"]
    responses.pop("422", None)
    if "minimal" in names and method != "get":
        responses["204"] = {"description": "Done, and nothing more to say: `Prefer: return=minimal`"}
    given = [each for each, by in HEADERS.items() if names & {*by}] + ["Idempotent-Replayed"] * route.rule.idempotent
    headers = {each: {"$ref": f"#/components/headers/{each}"} for each in given}
    for status, response in responses.items():
        if status < "400" and (said := _said(headers, status, method)):
            response["headers"] = said
    if "reply_unless_known" in names:
        responses["304"] = {"description": "As `If-None-Match` has it", "headers": {"ETag": headers.get("ETag", parts.ETAG)}}
    for status in _refusals(operation, route, names, method):
        responses.setdefault(status, {"$ref": f"#/components/responses/{parts.BY_STATUS[status]}"})
    responses["default"] = {"$ref": "#/components/responses/Problem"}
    operation["responses"] = dict(sorted(responses.items()))


def _asked(route: GuardedRoute, names: frozenset[str]) -> Iterator[str]:
    """The headers of a request that mean something to an endpoint."""
    if route.rule.idempotent:
        yield "IdempotencyKey"
    if "wait_seconds" in names:
        yield "PreferWait"
    if "preferences" in names and "return" in names:
        yield "PreferReturn"
    if "if_match" in names and route.path_format.count("{"):
        yield "IfMatch"
    if "reply_unless_known" in names:
        yield "IfNoneMatch"


def _said(headers: Mapping[str, Any], status: str, method: str) -> dict[str, Any]:
    return {name: header for name, header in headers.items() if _is_said(name, status, method)}


def _is_said(name: str, status: str, method: str) -> bool:
    """An answer without a body names no new thing, and a reader is told of no other place unless sent there."""
    if status >= "300":
        return name == "Location"
    if status == "204":
        return name not in {"Location", "Idempotent-Replayed"}
    return name != "Location" or method != "get"


def _refusals(operation: Mapping[str, Any], route: GuardedRoute, names: frozenset[str], method: str) -> Iterator[str]:
    rule, has_body = route.rule, "requestBody" in operation
    yield "400"
    if operation["security"]:
        yield "401"
    if rule.permission is not None:
        yield "403"
    if "{" in route.path_format:
        yield "404"
    if method.upper() not in READING:
        yield "409"
    if "if_match" in names:
        yield "412"
    if has_body:
        yield from ("413", "415")
    if has_body or "parameters" in operation:
        yield "422"
    if rule.costly or operation["security"]:  # whoever is known is counted, whatever they ask for
        yield "429"
    yield "503"


def _named(endpoint: Callable[..., Any], service: str) -> str:
    """What generated clients call it: as the code does, and whose it is where every service has one."""
    name = endpoint.__name__
    if not endpoint.__module__.startswith("libs."):
        return name
    verb, _, rest = name.partition("_")
    return f"{verb}_{service}_{rest}"


def _tag(path: str) -> str:
    """What it is about: the first part of its path that says so."""
    first, *rest = path.strip("/").split("/")
    return rest[0] if first in {"v1", "ops"} and rest else first.removeprefix(".")


def _about(endpoint: Callable[..., Any]) -> str:
    """What the module of a route says of itself."""
    said = str(sys.modules[endpoint.__module__].__doc__).split("\n\n", maxsplit=1)[0].removeprefix("HTTP in: ")
    said = " ".join(said.split())
    return said[:1].upper() + said[1:]


def reached(endpoint: Callable[..., Any]) -> frozenset[str]:
    """Every name and word in the code of an endpoint, and of the functions of the edge that it calls."""
    names: set[str] = set()
    seen: set[FunctionType] = set()
    ahead: list[Any] = [endpoint]
    while ahead:
        function = ahead.pop()
        if not isinstance(function, FunctionType) or function in seen or not _is_of_the_edge(function):
            continue
        seen.add(function)
        for code in _codes(function.__code__):
            names.update(code.co_names, _words(code))
            ahead += [function.__globals__.get(name) for name in _globals(code)]
    return frozenset(names)


def _is_of_the_edge(function: FunctionType) -> bool:
    module = function.__module__.split(".")
    return module[:3] == ["libs", "common", "http"] or module[2:3] == ["api"] or module[0] == "tests"


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _globals(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname == "LOAD_GLOBAL":
            yield str(instruction.argval)


def _words(code: CodeType) -> Iterator[str]:
    """Its texts; the names of arguments stand in tuples."""
    for constant in code.co_consts:
        for word in constant if isinstance(constant, tuple) else (constant,):
            if isinstance(word, str):
                yield word
