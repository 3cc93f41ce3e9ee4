"""Every code that a refusal may have, as the program declares them, and what whoever meets it can do about it."""

import ast
import importlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.composition import parts_of
from deploy.local.state import ROOT
from libs.common.decision import absent
from libs.common.errors import CartwrightError
from libs.common.http.connection import RefusedError
from libs.common.http.server import CODES
from libs.common.standings import OPEN, shut
from services import SERVICES
from services.identity.domain.tenant import TenantStatus
from services.payments.domain.provider.concluding import REMEDIES

ADVICE: Final = ROOT / "deploy" / "reference" / "errors.yaml"
ABSENT: Final = "-not-found"
"""How the code of whatever is not there ends: one piece of advice for them all."""
Statuses = Mapping[str, int]


@cache
def declared() -> dict[str, frozenset[int]]:
    """Every code, and the statuses that it comes with."""
    found: dict[str, set[int]] = {"internal": {500}}
    for code, status in (*written_in({path: path.read_text(encoding="utf-8") for path in _sources()}), *_made_up()):
        found.setdefault(code, set()).add(status)
    return {code: frozenset(found[code]) for code in sorted(found)}


def written_in(sources: Mapping[Path, str]) -> list[tuple[str, int]]:
    """The codes that stand in these modules, each with its status."""
    trees = {path: ast.parse(text) for path, text in sources.items()}
    statuses = _statuses(trees)
    return [each for path, tree in trees.items() for each in _raised(tree, path, statuses)]


def advice() -> dict[str, dict[str, str]]:
    """What to do about each, by code: `callers` may meet it, `others` are told to messages and operators alone."""
    written: dict[str, dict[str, str]] = yaml.safe_load(ADVICE.read_text(encoding="utf-8"))
    return written


def rendered() -> str:
    """The codes that callers may meet, for the page that lists them."""
    written = advice()
    told = [
        {"code": code, "statuses": sorted(statuses), "advice": written["callers"].get(code, written["absent"][ABSENT])}
        for code, statuses in declared().items()
        if code not in written["others"]
    ]
    return "[\n" + ",\n".join(json.dumps(each, ensure_ascii=False) for each in told) + "\n]\n"


def _sources() -> Iterator[Path]:
    for folder in ("libs", "services"):
        yield from (path for path in sorted((ROOT / folder).rglob("*.py")) if "migrations" not in path.parts)


def _statuses(trees: Mapping[Path, ast.Module]) -> dict[str, int]:
    """The status of every class of errors, by its name."""
    found = {CartwrightError.__name__: CartwrightError.status}
    classes = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    while True:
        new = [each for each in classes if each.name not in found and any(ast.unparse(base) in found for base in each.bases)]
        if not new:
            return found
        for each in new:
            own = [ast.literal_eval(line.value) for line in each.body if isinstance(line, ast.Assign)]
            base = next(ast.unparse(base) for base in each.bases if ast.unparse(base) in found)
            found[each.name] = next((value for value in own if isinstance(value, int)), found[base])


def _raised(tree: ast.Module, path: Path, statuses: Statuses) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in statuses:
            for each in ast.walk(node):
                if isinstance(each, ast.Call) and ast.unparse(each.func) == "super().__init__":
                    yield from _coded(each.args[:1], path, statuses[node.name])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == RefusedError.__name__:
                yield from _coded(node.args[1:2], path, int(ast.literal_eval(node.args[0])))
            elif node.func.id in statuses and node.func.id != "InvalidTokenError":  # it is told as one code, and why in words
                yield from _coded(node.args[:1], path, statuses[node.func.id])


def _coded(arguments: list[ast.expr], path: Path, status: int) -> Iterator[tuple[str, int]]:
    """The code that stands there, as a text or by the name of a constant; what is made up is told of apart."""
    for argument in arguments:
        if isinstance(argument, ast.Constant):
            yield str(argument.value), status
        elif isinstance(argument, ast.Name) and argument.id.isupper():
            module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
            yield str(getattr(module, argument.id)), status


def _made_up() -> Iterator[tuple[str, int]]:
    """Those that are made of other words: of what is not there, of how a tenant stands, of what the provider has."""
    for service in SERVICES:
        for rows in parts_of(service).rows:
            error: CartwrightError = absent(rows.kind)
            yield error.code, error.status
    for status in set(TenantStatus) - OPEN:
        yield shut(status).code, shut(status).status
    for obstacle in REMEDIES:
        yield str(obstacle), 409
    yield from ((code, status) for status, code in CODES.items())


FILES: Final[dict[Path, Any]] = {ROOT / "deploy" / "reference" / "pages" / "errors.json": rendered}
"""What is generated whole, and by what."""
