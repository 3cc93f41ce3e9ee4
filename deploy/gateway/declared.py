"""What the services' routes declare, as far as the gateway needs to know, and the file that keeps it.

The file is committed, so that starting a gateway loads no service; `./cartwright fmt` writes it, `check` compares it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from services import SERVICES

if TYPE_CHECKING:
    from libs.common.http.routes import GuardedRoute

FILE: Final = Path(__file__).parent / "routes.json"

Counted = Literal["strangers", "beginners", "nobody"]
"""By which limit an address is counted that asks: as one who need not say who it is, as one who begins what costs, or not."""

_PARAMETER: Final = re.compile(r"\{(?P<name>\w+)(?P<open>:path)?\}")
_FIRST: Final = "identity"
"""Whose a path is that every service has; the others' has their name in it."""


@dataclass(frozen=True, slots=True)
class Declared:
    """One route of a service that customers reach."""

    service: str
    path: str
    """Where customers find it, as a template."""
    expression: str
    """The same as a regular expression (RE2) of the raw path; empty where the template is the path."""
    behind: str
    """Where the service has it, if that is another place."""
    method: str
    counted: Counted = "nobody"
    idempotent: bool = False
    """Whether it demands an `Idempotency-Key`: it may be sent again unless an answer has begun."""
    streams: bool = False
    """Whether its answer may take as long as it likes."""


def declared() -> list[Declared]:
    """What the code declares. Paths are in the order in which they are to be looked at: the exact ones first."""
    from deploy.composition import parts_of

    routes: dict[str, list[GuardedRoute]] = {service: [*_customers(parts_of(service).routes.routes)] for service in SERVICES}
    owners: dict[str, set[str]] = {}
    for service, theirs in routes.items():
        for route in theirs:
            owners.setdefault(route.path, set()).add(service)
    found = [
        _declared(service, route, method, is_shared=len(owners[route.path]) > 1)
        for service, theirs in routes.items()
        for route in theirs
        for method in sorted(route.methods or ())
    ]
    return sorted(found, key=lambda each: (bool(each.expression), ":path" in each.path, each.path, each.method))


def committed() -> list[Declared]:
    """What the file says."""
    return [Declared(**each) for each in json.loads(FILE.read_text(encoding="utf-8"))]


def text() -> str:
    """The file as it should be: a line a route."""
    return "[\n" + ",\n".join(f"  {json.dumps(_told(each))}" for each in declared()) + "\n]\n"


def _customers(routes: Sequence[Any]) -> "Iterator[GuardedRoute]":
    from libs.common.http.guards import Facing

    return (route for route in routes if route.facing is Facing.CUSTOMERS)


def _declared(service: str, route: "GuardedRoute", method: str, *, is_shared: bool) -> Declared:
    rule, ids = route.rule, {each.name for each in route.dependant.path_params if each.field_info.annotation is UUID}
    moved = is_shared and service != _FIRST
    path = route.path.replace("/v1/", f"/v1/{service}-", 1) if moved else route.path
    counted: Counted = "strangers" if rule.permission is None else "beginners" if rule.costly and method != "GET" else "nobody"
    return Declared(
        service,
        path,
        _expression(path, ids) if "{" in path else "",
        route.path if moved else "",
        method,
        counted,
        idempotent=rule.idempotent,
        streams=rule.streams,
    )


def _expression(path: str, ids: set[str]) -> str:
    """Segments as they are sent. Only in one that is text may a slash stand, percent-encoded; an id has nothing encoded in it."""

    def parameter(match: re.Match[str]) -> str:
        return ".+" if match["open"] else "[^/%]+" if match["name"] in ids else "[^/]+"

    literal, parameters = _PARAMETER.split(path)[:: _PARAMETER.groups + 1], _PARAMETER.finditer(path)
    parts = [re.escape(literal[0]).replace(r"\-", "-")]
    for match, after in zip(parameters, literal[1:], strict=True):
        parts += [parameter(match), re.escape(after).replace(r"\-", "-")]
    return "".join(parts)


def _told(route: Declared) -> Mapping[str, Any]:
    usual = Declared("", "", "", "", "")
    return {name: value for name, value in asdict(route).items() if name in _ALWAYS or value != getattr(usual, name)}


_ALWAYS: Final = frozenset({"service", "path", "method", "expression", "behind"})
