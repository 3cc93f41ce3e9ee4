"""A gateway's configuration as the files Envoy reads. It reads three of them again whenever they are replaced."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from deploy.gateway.declared import Declared
from deploy.gateway.listening import listeners, secrets
from deploy.gateway.pages import FOLDERS
from deploy.gateway.plan import Plan
from deploy.gateway.routing import route_configuration
from deploy.gateway.upstreams import clusters
from deploy.gateway.watching import watched

BOOTSTRAP: Final = "envoy.json"
_ASKED: Final = (
    "/ready",
    "/stats",
    "/stats/prometheus",
    "/clusters",
    "/listeners",
    "/server_info",
    "/config_dump",
    "/drain_listeners",
)


def configuration(plan: Plan, routes: Sequence[Declared], folders: Mapping[str, Path] = FOLDERS) -> dict[str, dict[str, Any]]:
    """The content of each file by its name, in the order in which they are taken up best: what is named before who names it."""
    return {
        "certificates.json": {"resources": secrets(plan.certificates) if plan.certificates else []},
        "clusters.json": {"resources": clusters(plan)},
        "listeners.json": {"resources": listeners(plan)},
        "routes.json": {"resources": [route_configuration(plan, routes, folders)]},
        BOOTSTRAP: _bootstrap(plan),
    }


def whole(files: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """All of it as one file, which Envoy reads once: what `--mode validate` looks at, since it opens no other."""
    routes = files["routes.json"]["resources"][0]
    listeners = json.loads(json.dumps(files["listeners.json"]["resources"]), object_hook=_without_places)
    for listener in listeners:
        for chain in listener["filter_chains"]:
            for each in chain["filters"]:
                del each["typed_config"]["rds"]
                each["typed_config"]["route_config"] = _untyped(routes)
    found = {
        "secrets": [_untyped(each) for each in files["certificates.json"]["resources"]],
        "clusters": [_untyped(each) for each in files["clusters.json"]["resources"]],
        "listeners": [_untyped(each) for each in listeners],
    }
    bootstrap = {name: value for name, value in files[BOOTSTRAP].items() if name != "dynamic_resources"}
    beside = bootstrap.get("static_resources", {})
    return {**bootstrap, "static_resources": {name: [*each, *beside.get(name, ())] for name, each in found.items()}}


def _without_places(found: dict[str, Any]) -> dict[str, Any]:
    """What is asked for by name stands in the same file."""
    return {name: value for name, value in found.items() if name != "sds_config"}


def _untyped(resource: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in resource.items() if name != "@type"}


def write(files: Mapping[str, dict[str, Any]], folder: Path) -> None:
    """Replace each file that has changed, whole: Envoy takes up what is moved into place, and drops no connection for it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, content in files.items():
        text, file = json.dumps(content, indent=1), folder / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            draft = folder / f".{name}.new"
            draft.write_text(text, encoding="utf-8")
            draft.replace(file)


def _bootstrap(plan: Plan) -> dict[str, Any]:
    admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": plan.ops_port}}}
    return {
        "node": {"id": "gateway", "cluster": "cartwright"},
        "admin": admin | {"allow_paths": [{"exact": path} for path in _ASKED], "ignore_global_conn_limit": True},
        "dynamic_resources": {
            "lds_config": plan.file("listeners.json"),
            "cds_config": plan.file("clusters.json"),
        },
        "overload_manager": {"resource_monitors": [_most_connections(plan)]},
        **({"static_resources": watched(plan)} if plan.watched_port else {}),
    }


def _most_connections(plan: Plan) -> dict[str, Any]:
    kind = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    most = {"@type": f"type.googleapis.com/{kind}", "max_active_downstream_connections": plan.connections}
    return {"name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": most}
