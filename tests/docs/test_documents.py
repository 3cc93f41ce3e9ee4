"""What the documents say is so: generated parts are current, commands parse, links lead somewhere, names are complete."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from deploy.cli import documents
from deploy.cli.errors import CommandError
from deploy.cli.main import app
from deploy.local.environment import known_names
from deploy.local.state import ROOT
from libs.common.settings import PREFIX
from services import SERVICES

README = ROOT / "README.md"
ADRS = sorted((ROOT / "docs" / "adr").glob("*.md"))
RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "services").glob("*/README.md"),
        *(ROOT / "deploy").rglob("README.md"),
    ]
)
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


def _name(document: Path) -> str:
    return str(document.relative_to(ROOT))


def _blocks(document: Path, *languages: str) -> Iterator[str]:
    for match in FENCE.finditer(document.read_text(encoding="utf-8")):
        if match["language"] in languages:
            yield match["body"]


def _command_lines() -> list[str]:
    blocks = [block for document in DOCUMENTS for block in _blocks(document, "sh", "")]
    return sorted({line.strip() for block in blocks for line in block.splitlines() if line.strip().startswith("./cartwright")})


def _parse(command: Any, words: list[str]) -> None:
    """Take the words as the command line would, without doing anything. Raises what it raises on wrong usage."""
    while hasattr(command, "commands"):
        word = words.pop(0)
        assert word in command.commands, f"{word} is no verb"
        command = command.commands[word]
    command.make_context(command.name, words)


@pytest.mark.parametrize("document", documents.documents(), ids=_name)
def test_the_generated_parts_of_a_document_are_what_the_code_says(document: Path) -> None:
    expected = documents.regenerated(document, documents.documents()[document])
    assert document.read_text(encoding="utf-8") == expected, "run: python -m deploy.cli.documents"


def test_a_document_that_lacks_a_generated_part_is_refused_by_name(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    document.write_text("# nothing\n")
    with pytest.raises(CommandError, match="wants the generated parts verbs"):
        documents.regenerated(document, {"verbs": documents.verbs})


def test_a_generated_part_is_put_in_the_place_of_what_stood_there_and_nothing_else_is_touched(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    document.write_text("before\n<!-- generated: part -->\nold\n<!-- /generated -->\nafter\n")
    expected = "before\n<!-- generated: part -->\n\nnew\n\n<!-- /generated -->\nafter\n"
    assert documents.regenerated(document, {"part": lambda: "new"}) == expected
    document.write_text(expected)
    assert documents.regenerated(document, {"part": lambda: "new"}) == expected


@pytest.mark.parametrize("service", SERVICES)
def test_every_move_of_a_service_is_in_its_diagram_and_no_other(service: str) -> None:
    machines = documents.machines(service)
    assert machines
    for table in machines.values():
        moves = {(str(state), str(onward)) for state, onwards in table.items() for onward in onwards}
        drawn = set(re.findall(r"^    (\w+) --> (\w+)$", documents.diagram(table), re.MULTILINE))
        assert drawn == moves
        assert set(table) == set(type(next(iter(table)))), "a state without a row"


@pytest.mark.parametrize("service", SERVICES)
def test_every_topic_of_an_event_that_a_service_handles_is_one_that_it_listens_to(service: str) -> None:
    consumed = re.findall(r"^\| [^|]+ \| `([\w.-]+)` \|", documents.consumes(service), re.MULTILINE)
    listened = [line for line in documents.topics().splitlines() if service in line.split("|")[3]]
    assert set(consumed) == {line.split("`")[1] for line in listened}


@pytest.mark.parametrize("line", _command_lines())
def test_a_command_in_a_document_parses_as_a_verb_with_its_options(line: str) -> None:
    words = shlex.split(line, comments=True)
    assert words.pop(0) == "./cartwright"
    _parse(get_command(app), words)


def test_the_two_commands_stand_at_the_top_of_the_readme() -> None:
    first = next(_blocks(README, "sh"))
    assert [" ".join(line.split()[:2]) for line in first.splitlines()] == ["./cartwright demo", "./cartwright test"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_every_relative_link_of_a_document_leads_to_a_file_and_a_heading_that_exist(document: Path) -> None:
    prose = FENCE.sub("", document.read_text(encoding="utf-8"))
    for match in LINK.finditer(prose):
        target, _, heading = match["target"].partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (document.parent / target).resolve() if target else document
        assert file.exists(), f"{match[0]} leads nowhere"
        assert file.is_relative_to(ROOT), f"{match[0]} leads out of the repository"
        assert not heading or heading in _headings(file), f"{match[0]}: there is no such heading"


def _headings(document: Path) -> set[str]:
    """The anchors of a document, as the usual renderers make them."""
    prose = FENCE.sub("", document.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_names_every_variable_that_exists_and_no_other() -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]*[A-Z]\b", README.read_text(encoding="utf-8")))
    tabled = set(re.findall(rf"^\| `({PREFIX}\w+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE))
    known = {PREFIX + name for name in known_names()}
    assert tabled == known
    assert {name.removesuffix("_FILE") for name in named} <= known


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_every_picture_of_a_document_has_a_kind_and_something_in_it(document: Path) -> None:
    for picture in _blocks(document, "mermaid"):
        kind, *lines = [line for line in picture.splitlines() if line.strip()]
        assert kind.split()[0] in {"flowchart", "sequenceDiagram", "stateDiagram-v2"}
        assert len(lines) >= 2


@pytest.mark.parametrize("adr", ADRS, ids=_name)
def test_a_decision_record_says_why_what_it_costs_what_else_there_was_and_what_would_reopen_it(adr: Path) -> None:
    text = adr.read_text(encoding="utf-8")
    assert re.match(rf"# {adr.name[:4]} \S", text)
    wanted = ["Context", "Decision", "Consequences", "Alternatives", "What would reopen it"]
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == wanted
    assert f"(adr/{adr.name})" in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_every_test_that_a_document_names_is_there(document: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+(?:\.py)?)/?`", document.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("runbook", RUNBOOKS, ids=_name)
def test_a_runbook_names_only_metrics_and_messages_that_exist(runbook: Path) -> None:
    text, known = runbook.read_text(encoding="utf-8"), (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")
    assert {name for name in re.findall(r"\bcartwright_\w+", text) if f"`{name}`" not in known} == set()
    said = re.findall(r"`([a-z_-]+\.[a-z_-]+)`", text)
    code = "".join(file.read_text(encoding="utf-8") for part in ("services", "libs") for file in (ROOT / part).rglob("*.py"))
    assert {name for name in said if f'"{name}"' not in code} == set()


def test_every_runbook_is_in_their_index_and_says_what_one_sees_and_what_to_do_about_it() -> None:
    index = (ROOT / "docs" / "runbooks" / "README.md").read_text(encoding="utf-8")
    for runbook in RUNBOOKS:
        if runbook.name != "README.md":
            assert f"({runbook.name})" in index
            headings = re.findall(r"^## (.+)$", runbook.read_text(encoding="utf-8"), re.MULTILINE)
            assert headings == ["What you see", "What it means", "What to do", "What not to do"]


def test_every_invariant_that_can_be_broken_is_in_its_runbook_and_no_other() -> None:
    named = re.compile(r'(?:_violation\(\s*(?:facts|books), |invariant=)"([a-z-]+)"')
    checked = {name for file in (ROOT / "deploy" / "cli" / "invariants").glob("*.py") for name in named.findall(file.read_text())}
    rows = [
        line for line in (ROOT / "docs" / "runbooks" / "broken-invariants.md").read_text().splitlines() if line.startswith("|")
    ]
    assert {name for row in rows for name in re.findall(r"`([a-z-]+)`", row.split("|")[1])} == checked


def test_every_declared_event_belongs_to_a_topic_that_is_declared_under_the_same_publisher() -> None:
    declared = yaml.safe_load((ROOT / "deploy" / "topics.yaml").read_text(encoding="utf-8"))["topics"]
    for service in SERVICES:
        for topic in re.findall(r"^\| `[\w.-]+` \| `([\w.-]+)` \|", documents.publishes(service), re.MULTILINE):
            assert declared[topic]["publisher"] == service
