"""The one OpenAPI document of what the gateway shows: every service's, without what is for operators."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from deploy.composition import parts_of
from deploy.gateway.declared import declared
from deploy.local.state import ROOT
from libs.common.http.openapi import operations_of
from libs.common.http.openapi_schemas import SCHEMAS, nodes, with_names
from services import SERVICES

PAGES: Final = ROOT / "deploy" / "reference" / "pages"
ABOUT: Final = "A purchase path: carts, checkouts, payments, and who may do what. "
KINDS: Final = ("schemas", "parameters", "responses", "headers", "securitySchemes")
Documents = Mapping[str, dict[str, Any]]


def merged() -> dict[str, Any]:
    """One document of all services, of what the gateway routes and where it has it."""
    documents = {service: _of_customers(service) for service in SERVICES}
    for service, names in _ambiguous(documents).items():
        with_names(documents[service], {name: service.capitalize() + name for name in names})
    first, *others = documents.values()
    first["info"] |= {"title": "Cartwright", "description": ABOUT + first["info"]["description"]}
    for other in others:
        first["paths"] |= other["paths"]
        for kind in KINDS:
            first["components"][kind] |= other["components"][kind]
    about = {tag["name"]: tag for made in reversed(documents.values()) for tag in made["tags"]}
    first["tags"] = [about[tag] for tag in sorted({tag for each in operations_of(first) for tag in each["tags"]})]
    _prune(first)
    return first


def rendered() -> str:
    """The same as text."""
    return json.dumps(merged(), indent=1, ensure_ascii=False) + "\n"


FILES: Final[dict[Path, Callable[[], str]]] = {PAGES / "openapi.json": rendered}
"""What is generated whole, and by what."""


def _of_customers(service: str) -> dict[str, Any]:
    from libs.common.processes.api import api_app

    made = json.loads(json.dumps(api_app(service, parts_of(service).routes).openapi()))
    shown: dict[str, Any] = {}
    for route in declared():
        if route.service == service:
            path, behind = (each.replace(":path}", "}") for each in (route.path, route.behind or route.path))
            shown.setdefault(path, {})[route.method.lower()] = made["paths"][behind][route.method.lower()]
    made["paths"] = shown
    return dict(made)


def _ambiguous(documents: Documents) -> dict[str, Sequence[str]]:
    """The schemas of each service whose name means something else in another, or that are made of such."""
    schemas = {service: made["components"]["schemas"] for service, made in documents.items()}
    shared = {name: [of for of in schemas if name in schemas[of]] for each in schemas.values() for name in each}
    found = {name for name, of in shared.items() if any(schemas[one][name] != schemas[of[0]][name] for one in of)}
    while True:
        more = {name for name, of in shared.items() if len(of) > 1 and _named(schemas[of[0]][name]) & found} - found
        if not more:
            return {service: [name for name in each if name in found] for service, each in schemas.items()}
        found |= more


def _named(tree: Any) -> set[str]:
    return {str(node["$ref"]).removeprefix(SCHEMAS) for node in nodes(tree) if "$ref" in node}


def _prune(made: dict[str, Any]) -> None:
    """Leave out the components that nothing refers to any more."""
    components = made["components"]
    while True:
        used = {str(node["$ref"]) for node in nodes(made) if "$ref" in node}
        unused = [(kind, name) for kind in KINDS[:4] for name in components[kind] if f"#/components/{kind}/{name}" not in used]
        if not unused:
            return
        for kind, name in unused:
            del components[kind][name]
