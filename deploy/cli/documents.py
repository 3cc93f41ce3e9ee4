"""The parts of the documents that are written from the code: state diagrams, tables of routes, events, topics and verbs.

Such a part stands between `<!-- generated: NAME -->` and `<!-- /generated -->`. Everything else in a document is its
author's. Beside them stand files that are written whole, such as the routes that customers reach (`deploy/gateway/routes.json`).
`python -m deploy.cli.documents` writes the parts anew; with `--check` it only names what is out of date.
"""

import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from deploy.chart import files as chart
from deploy.cli import access, codes, reference
from deploy.cli.contracts import files
from deploy.cli.errors import CommandError, ExitCode
from deploy.compose import files as composed
from deploy.composition import meaning_of, parts_of, settings_of
from deploy.gateway import declared
from deploy.local.environment import OWN
from deploy.local.ports import DEFAULT_PORTS
from deploy.local.state import ROOT
from deploy.observability import files as watched
from libs.common.settings import PREFIX
from services import SERVICES

if TYPE_CHECKING:
    from libs.common.contracts import Event

Section = Callable[[], str]
"""Renders one generated part."""

Transitions = Mapping[Enum, frozenset[Enum]]

_PART: Final = re.compile(r"(<!-- generated: (?P<name>[a-z]+) -->\n)(?P<body>.*?)(<!-- /generated -->)", re.DOTALL)
_CONTRACTS: Final = "libs.common.contracts"
_TOPICS_FILE: Final = ROOT / "deploy" / "topics.yaml"
_PARTS: Final = {
    "gateway": "Envoy, which customers come through; `gateway.ops` 8280 is its operators' port",
    "postgres": "PostgreSQL, a database a service",
    "kafka": "Apache Kafka, one KRaft node",
    "stripe": "the fake Stripe",
}


def documents() -> dict[Path, dict[str, Section]]:
    """Return every document with generated parts, and what renders each part."""
    of_services: dict[Path, dict[str, Section]] = {
        ROOT / "services" / service / "README.md": {
            "accepts": partial(accepts, service),
            "publishes": partial(publishes, service),
            "consumes": partial(consumes, service),
            "transitions": partial(transitions, service),
        }
        for service in SERVICES
    }
    of_all: dict[Path, dict[str, Section]] = {
        ROOT / "README.md": {"services": services, "topics": topics, "variables": variables, "verbs": verbs},
        ROOT / "docs" / "architecture.md": {"databases": databases},
        ROOT / "docs" / "access.md": dict(access.SECTIONS),
    }
    return of_all | of_services


def regenerated(document: Path, sections: Mapping[str, Section]) -> str:
    """Return a document's text with its generated parts as they should be. Each must be there exactly once."""
    text = document.read_text(encoding="utf-8")
    found = [match["name"] for match in _PART.finditer(text)]
    if sorted(found) != sorted(sections):
        wanted = ", ".join(sorted(sections))
        raise CommandError(f"{document}: wants the generated parts {wanted}, each once; it has {', '.join(found) or 'none'}")
    return _PART.sub(lambda match: f"{match[1]}\n{sections[match['name']]()}\n\n{match[4]}", text)


def wanted() -> dict[Path, Section]:
    """Return what renders each document whole: those with generated parts, and those that are nothing else."""
    made = {**reference.FILES, **codes.FILES, **chart.FILES, **composed.FILES, **watched.FILES}
    whole = {declared.FILE: declared.text, **made}
    return {file: partial(regenerated, file, sections) for file, sections in documents().items()} | whole


def stale() -> list[Path]:
    """Return the documents that differ from the code."""
    return [file for file, text in wanted().items() if not file.is_file() or file.read_text(encoding="utf-8") != text()]


def write() -> list[Path]:
    """Bring every document up to date; return those that were changed."""
    changed = stale()
    for document in changed:
        document.write_text(wanted()[document](), encoding="utf-8")
    return changed


# --- A service ----------------------------------------------------------------------------------------------------


def accepts(service: str) -> str:
    """Render the routes of a service's API."""
    from libs.common.processes.api import api_app

    paths: dict[str, dict[str, Any]] = api_app(service, parts_of(service).routes).openapi()["paths"]
    rows = [
        (f"`{verb.upper()} {path}`{_star(operation)}", _needs(operation), operation["description"])
        for path, operations in paths.items()
        for verb, operation in operations.items()
    ]
    return _table(("verb and path", "permission", "what it does"), rows)


def publishes(service: str) -> str:
    """Render the events that a service declares, and who reacts to them."""
    rows = [
        (f"`{event.TYPE}`", f"`{event.TOPIC}`", ", ".join(_reacting(event)) or "none", _sentence(event))
        for event in files.events()
        if event.__module__ == f"{_CONTRACTS}.{service}"
    ]
    return _table(("event", "topic", "consumer groups", "what it says"), rows)


def consumes(service: str) -> str:
    """Render the events that a service handles, and what it makes of them."""
    published_by = {name: str(topic["publisher"]) for name, topic in _declared_topics().items()}
    rows = [
        (f"`{event.TYPE}`", f"`{event.TOPIC}`", published_by[event.TOPIC], _sentence(handler.decide))
        for event, handler in _handlers(service).table.items()
        if event in files.events()
    ]
    for group, handlers in _apart(service).items():
        for topic in dict.fromkeys(event.TOPIC for event in handlers.events()):
            read = [event for event in handlers.events() if topic == event.TOPIC]
            what = f"{len(read)} events, in the group `{group}`"
            rows.append((what, f"`{topic}`", published_by[topic], _sentence(handlers[read[0]].decide)))
    return _table(("event", "topic", "published by", "what happens"), rows)


def transitions(service: str) -> str:
    """Render a state diagram for every TRANSITIONS table of a service's domain."""
    return "\n\n".join(f"### {name}\n\n{diagram(table)}" for name, table in machines(service).items())


def machines(service: str) -> dict[str, Transitions]:
    """Find a service's TRANSITIONS tables, each under the name of what moves."""
    found: dict[str, Transitions] = {}
    for module in _domain(service):
        for name, table in vars(module).items():
            if name.endswith("TRANSITIONS"):
                states = type(next(iter(table)))
                found[re.sub(r"(State|Status)$", "", states.__name__)] = table
    return found


def diagram(table: Transitions) -> str:
    """Render a table of transitions. Its first row is where things begin; a state with nowhere to go is an end."""
    order = list(type(next(iter(table))))
    lines = [f"[*] --> {_name(next(iter(table)))}"]
    for state in order:
        lines += [f"{_name(state)} --> {_name(onward)}" for onward in sorted(table[state], key=order.index)]
    lines += [f"{_name(state)} --> [*]" for state in order if not table[state]]
    return "\n".join(["```mermaid", "stateDiagram-v2", *(f"    {line}" for line in lines), "```"])


# --- The whole ----------------------------------------------------------------------------------------------------


def services() -> str:
    """Render the services and the parts they stand on, with their default ports."""
    rows = [
        (
            f"[{service}](services/{service}/README.md)",
            str(DEFAULT_PORTS[f"{service}.api"]),
            str(DEFAULT_PORTS[f"{service}.ops"]),
            str(DEFAULT_PORTS[f"{service}.worker"]),
            _first_paragraph(ROOT / "services" / service / "README.md"),
        )
        for service in SERVICES
    ]
    rows += [(name, str(DEFAULT_PORTS[name]), "", "", what) for name, what in _PARTS.items()]
    return _table(("part", "port", "its operators' port", "worker's port", "what it owns or is"), rows)


def databases() -> str:
    """Render the tables of every service's database, the kernel's apart."""
    rows = []
    for service in SERVICES:
        tables = importlib.import_module(f"services.{service}.tables").METADATA.tables
        rows.append((f"`{service}`", ", ".join(f"`{name}`" for name in tables)))
    return _table(("database", "tables"), rows)


def topics() -> str:
    """Render the declared topics: who publishes, who consumes, how many partitions, how long records stay."""
    rows = [
        (f"`{name}`", str(topic["publisher"]), ", ".join(_consuming(name)) or "none", _partitions(topic), _kept(topic))
        for name, topic in _declared_topics().items()
    ]
    return _table(("topic", "published by", "consumer groups", "partitions, local / production", "kept"), rows)


def verbs() -> str:
    """Render the verbs of the command line."""
    from typer.main import get_command

    from deploy.cli.main import app

    rows = [(f"`{name}`", what) for name, what in _commands(get_command(app), "")]
    return _table(("verb", "what it does"), rows)


def variables() -> str:
    """Render the environment variables: who reads each, what holds without it, what it means."""
    from pydantic_core import PydanticUndefined

    rows = [(f"`{PREFIX}{name}`", reader, "", what) for name, (reader, what) in OWN.items()]
    readers: dict[str, list[str]] = {}
    for service in SERVICES:
        for name in settings_of(service).model_fields:
            readers.setdefault(name, []).append(service)
    for name, found in sorted(readers.items(), key=lambda each: -len(each[1])):
        settings = settings_of(found[0])
        default = settings.model_fields[name].default
        held = "required" if default is PydanticUndefined else f"`{default}`" if default else ""
        who = "services" if len(found) == len(SERVICES) else ", ".join(found)
        rows.append((f"`{PREFIX}{name.upper()}`", who, held, meaning_of(settings, name)))
    return _table(("variable", "read by", "default", "meaning"), rows)


# --- What the code says -------------------------------------------------------------------------------------------


@cache
def _declared_topics() -> dict[str, dict[str, Any]]:
    import yaml

    listed = yaml.safe_load(_TOPICS_FILE.read_text(encoding="utf-8"))
    return {name: listed["defaults"] | topic for name, topic in listed["topics"].items()}


def _handlers(service: str) -> Any:
    return parts_of(service).handlers


def _apart(service: str) -> dict[str, Any]:
    """The handlers of the projections that have consumer groups of their own, by group."""
    return {f"{service}.{name}": handlers for name, handlers in parts_of(service).handlers_apart.items()}


def _reacting(event: "type[Event]") -> list[str]:
    groups = {service: _handlers(service) for service in SERVICES}
    for service in SERVICES:
        groups |= _apart(service)
    return [group for group, handlers in groups.items() if event in handlers.table]


def _consuming(topic: str) -> list[str]:
    groups = [service for service in SERVICES if topic in parts_of(service).topics]
    apart = [group for service in SERVICES for group, handlers in _apart(service).items() if _reads(handlers, topic)]
    return [*groups, *apart]


def _reads(handlers: Any, topic: str) -> bool:
    return any(topic == event.TOPIC for event in handlers.events())


def _domain(service: str) -> Iterator[Any]:
    """Every module of a domain: the one module that it is, or those of the package and of the packages in it."""
    domain = importlib.import_module(f"services.{service}.domain")
    for module in pkgutil.walk_packages(getattr(domain, "__path__", ()), f"{domain.__name__}."):
        yield importlib.import_module(module.name)
    yield domain


def _commands(command: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for name, each in command.commands.items():
        if hasattr(each, "commands"):
            yield from _commands(each, f"{prefix}{name} ")
        elif not each.hidden:
            yield f"{prefix}{name}", str(each.help).split("\n\n", maxsplit=1)[0]


# --- Words --------------------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _sentence(documented: Any) -> str:
    return str(documented.__doc__ or "").strip().split("\n\n", maxsplit=1)[0]


def _name(state: Enum) -> str:
    return str(state.value)


def _star(operation: Mapping[str, Any]) -> str:
    return " ✱" if operation.get("x-idempotency-key") == "required" else ""


def _needs(operation: Mapping[str, Any]) -> str:
    """The permission a route demands; one that demands none may still know what to do with a token."""
    schemes: Sequence[Mapping[str, Sequence[str]]] = operation.get("security") or []
    named = [f"`{permission}`" for scheme in schemes for permissions in scheme.values() for permission in permissions]
    open_to_all = [] if schemes and all(schemes) else ["none"]
    return " or ".join([*open_to_all, *named])


def _partitions(topic: Mapping[str, Any]) -> str:
    return f"{topic['partitions']['local']} / {topic['partitions']['production']}"


def _kept(topic: Mapping[str, Any]) -> str:
    days = topic["retention_hours"] // 24
    return {
        "compact": "newest of each key",
        "delete": f"{days} days",
        "compact,delete": f"newest of each key, {days} day{'' if days == 1 else 's'}",
    }[topic["cleanup"]]


def _first_paragraph(document: Path) -> str:
    _title, paragraph = document.read_text(encoding="utf-8").split("\n\n", maxsplit=2)[:2]
    return paragraph


def main(arguments: Sequence[str]) -> int:
    """Write the generated parts, or with `--check` tell which are out of date; 1 when some are."""
    if list(arguments) not in ([], ["--check"]):
        print("usage: python -m deploy.cli.documents [--check]", file=sys.stderr)
        return ExitCode.USAGE
    check = bool(arguments)
    for document in (found := stale() if check else write()):
        print(f"{document.relative_to(ROOT)} {'is out of date' if check else 'is written'}")
    return ExitCode.NOT_SO if check and found else ExitCode.DONE


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
