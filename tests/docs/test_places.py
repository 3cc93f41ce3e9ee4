"""The places that documents name are there: every path, every `path::symbol`, and the calls that a walk tells of."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from deploy.local.state import ROOT
from libs.common import database
from tests.shared.sources import parsed

DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "services").glob("*/README.md"),
        *(ROOT / "deploy").rglob("README.md"),
    ]
)
ARCHITECTURE = ROOT / "docs" / "architecture.md"
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
TOP = {"services", "libs", "deploy", "tests", "docs", "requirements", ".ci"}
SUFFIXES = ("py", "md", "yaml", "toml", "json", "txt")
PATH = re.compile(rf"`((?:[\w.-]+/)*[\w.-]+(?:\.(?:{'|'.join(SUFFIXES)}))?/?)`")
ELSEWHERE = {"history.csv", "faults.json", "uv.lock", "poetry.lock"}
"""Files that are the reader's own, or that there are not on purpose."""
TO_BE_MADE = re.compile(r"^`[^`\n]+`:$", re.MULTILINE)
"""The file that a block below it is."""
SYMBOL = re.compile(r"`(?P<path>[\w./-]+\.py)::(?P<name>[\w.]+)`")
STEP = re.compile(
    r"^\| (?P<number>\d+) \| `(?P<path>[\w/]+\.py)::(?P<name>[\w.]+)` \| (?:(?P<by>\d+)(?P<table> →)? )?\|", re.MULTILINE
)
LOOK = re.compile(r"^\|[^|]*\| `(?P<path>[\w/]+\.py)(?:::(?P<name>[\w.]+))?` \| `(?P<word>\w+)` \|$", re.MULTILINE)
BY_TABLE = {"@HANDLERS.on(": "handler.decide(", "@ROUTES.": "self.endpoint("}
"""How a function is put into a table, and how whoever looks it up there calls it."""


def _name(document: Path) -> str:
    return str(document.relative_to(ROOT))


def _prose(document: Path) -> str:
    return FENCE.sub("", document.read_text(encoding="utf-8"))


@cache
def _definitions(path: str) -> dict[str, str]:
    """What a module defines, `Class.method` too, with its source: decorators are part of it."""
    text = (ROOT / path).read_text(encoding="utf-8")
    lines = text.splitlines()
    found = {"": text}

    def define(node: ast.stmt, prefix: str) -> None:
        names: list[str] = []
        first = node.lineno
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names, first = [node.name], min([node.lineno, *(each.lineno for each in node.decorator_list)])
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
        for name in names:
            found[prefix + name] = "\n".join(lines[first - 1 : node.end_lineno])
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                define(inner, f"{prefix}{node.name}.")

    for node in parsed(text).body:
        define(node, "")
    return found


def _paths(document: Path) -> Iterator[str]:
    """Whatever looks like a path of ours: it begins in one of our folders, or names a file. What is to be made is not."""
    for match in PATH.finditer(TO_BE_MADE.sub("", _prose(document))):
        named = match[1]
        top, slash, _ = named.partition("/")
        if (slash and top in TOP) or named.endswith((".py", ".md", ".toml", ".yaml")):
            yield named


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_every_path_that_a_document_names_is_there(document: Path) -> None:
    places = (ROOT, document.parent)
    missing = [name for name in _paths(document) if not any((place / name).exists() for place in places)]
    assert sorted(set(missing) - ELSEWHERE) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_every_symbol_that_a_document_names_is_defined_where_it_says(document: Path) -> None:
    named = [(match["path"], match["name"]) for match in SYMBOL.finditer(_prose(document))]
    assert [f"{path}::{name}" for path, name in named if name not in _definitions(path)] == []


def test_the_decision_on_tenants_names_every_table_without_one() -> None:
    said = (database.__doc__ or "").partition("Tables without a tenant, and why:")[2]
    adr = (ROOT / "docs" / "adr" / "0005-tenant-isolation.md").read_text(encoding="utf-8")
    assert {name for name in re.findall(r"`(\w+)`", said) if f"`{name}`" not in adr} == {"alembic_version"}


@pytest.mark.parametrize("walk", ["**A request**", "**An event**"])
def test_every_step_of_a_walk_is_called_by_the_one_that_it_names(walk: str) -> None:
    text = _prose(ARCHITECTURE).split(walk, maxsplit=1)[1].split("\n\n", maxsplit=2)[1]
    steps = {match["number"]: match for match in STEP.finditer(text)}
    assert len(steps) == text.count("\n") - 1, "a row that is no step"
    for step in steps.values():
        own = _definitions(step["path"])[step["name"]]
        called = f"{step['name'].rpartition('.')[2]}("
        if step["table"]:
            [called] = [call for registered, call in BY_TABLE.items() if own.startswith(registered)]
        if step["by"]:
            caller = steps[step["by"]]
            assert int(step["by"]) < int(step["number"])
            source = _definitions(caller["path"])[caller["name"]]
            calls = source.replace(f"def {caller['name'].rpartition('.')[2]}(", "")
            assert called in calls, f"{caller['name']} does not call {step['name']}"


def test_a_field_of_an_order_is_found_at_every_step_of_its_way() -> None:
    text = _prose(ARCHITECTURE).partition("### A new field on an order")[2].partition("###")[0]
    steps = list(LOOK.finditer(text))
    assert len(steps) == text.count("\n|") - 2, "a row that is no step"
    lacking = [step[0] for step in steps if step["word"] not in _definitions(step["path"])[step["name"] or ""]]
    assert lacking == []
