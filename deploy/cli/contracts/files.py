"""The generated files of `docs/contracts`: a JSON Schema for every event, an AsyncAPI document for every service.

The directory also holds what people write, `README.md` and `breaks.yaml`; those are never touched.
"""

import hashlib
import importlib
import io
import json
import pkgutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Final

import yaml

from deploy.cli.errors import CommandError
from deploy.composition import parts_of
from deploy.local.state import ROOT
from libs.common import contracts
from libs.common.contracts import Event
from services import SERVICES

Schema = dict[str, Any]
Schemas = Mapping[str, Schema]
"""Schemas of events by name: `<topic>/<type>.<version>`."""

DIRECTORY: Final = PurePosixPath("docs/contracts")
ASYNCAPI: Final = "asyncapi"
BREAKS: Final = "breaks.yaml"


@cache
def events() -> Sequence[type[Event]]:
    """Every event of the published language: those that its modules declare, whatever else this process has declared."""
    modules = [importlib.import_module(each.name) for each in pkgutil.iter_modules(contracts.__path__, f"{contracts.__name__}.")]
    names = {module.__name__ for module in modules}
    return [event for event in contracts.EVENTS.values() if event.__module__ in names]


@cache
def schemas() -> Schemas:
    """Every event of the code."""
    from libs.common.messaging.asyncapi import json_schema

    by_name = sorted(events(), key=lambda event: (event.TOPIC, event.TYPE, event.VERSION))
    return {f"{event.TOPIC}/{event.TYPE}.{event.VERSION}": json_schema(event) for event in by_name}


@cache
def documents() -> Schemas:
    """The AsyncAPI document of every service, by name: `asyncapi/<service>`."""
    from libs.common.messaging.asyncapi import document

    schemas()
    parts = map(parts_of, sorted(SERVICES))
    return {f"{ASYNCAPI}/{each.name}": document(each.name, each.handlers, each.handlers_apart) for each in parts}


def text(content: Schema) -> str:
    """Write a schema or a document the way it is committed."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def digest(schema: Schema) -> str:
    """Name one state of a schema, whatever its layout."""
    return hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).hexdigest()[:12]


def stale(root: Path = ROOT) -> list[Path]:
    """Return the generated files that differ from the code, are missing, or should not be there."""
    wanted, there = _wanted(root), set(_there(root))
    differing = [file for file, written in wanted.items() if file not in there or file.read_text(encoding="utf-8") != written]
    return sorted([*differing, *(there - wanted.keys())])


def write(root: Path = ROOT) -> list[Path]:
    """Bring every generated file up to date; return those that were changed."""
    changed, wanted = stale(root), _wanted(root)
    for file in changed:
        if file in wanted:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(wanted[file], encoding="utf-8")
        else:
            file.unlink()
    return changed


def working(root: Path = ROOT) -> Schemas:
    """Read the schemas of the working tree."""
    files = {file.relative_to(root / DIRECTORY).with_suffix("").as_posix(): file for file in _there(root)}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if _is_schema(name)}


def committed(revision: str, root: Path = ROOT) -> Schemas:
    """Read the schemas of a revision. None are there when it has none, when there is no such revision, or no git."""
    archive = _git(root, "archive", "--format=tar", revision, str(DIRECTORY))
    return dict(_schemas_of(archive)) if archive else {}


def accepted(root: Path = ROOT) -> Mapping[str, str]:
    """Read the breaks that are meant: which state of which schema may be left behind, and why."""
    file = root / DIRECTORY / BREAKS
    try:
        entries = (yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else None) or {}
    except yaml.YAMLError as error:
        raise CommandError(f"{DIRECTORY / BREAKS}: {error}") from error
    if not isinstance(entries, dict) or not all(isinstance(reason, str) and reason.strip() for reason in entries.values()):
        raise CommandError(f"{DIRECTORY / BREAKS}: every line is `<topic>/<type>.<version>@<digest>: <reason>`")
    return entries


def _wanted(root: Path) -> dict[Path, str]:
    everything = {**schemas(), **documents()}
    return {root / DIRECTORY / f"{name}.json": text(content) for name, content in everything.items()}


def _there(root: Path) -> Iterator[Path]:
    return (root / DIRECTORY).glob("*/*.json")


def _is_schema(name: str) -> bool:
    return not name.startswith(f"{ASYNCAPI}/")


def _schemas_of(archive: bytes) -> Iterator[tuple[str, Schema]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for member in files:
            path = PurePosixPath(member.name)
            content = files.extractfile(member) if path.suffix == ".json" else None
            name = path.with_suffix("").as_posix().removeprefix(f"{DIRECTORY}/")
            if content is not None and _is_schema(name):
                yield name, json.load(content)


def _git(root: Path, *arguments: str) -> bytes | None:
    """What git answers; None when it refuses or is not there."""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - our own arguments
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
