"""How the tests themselves lie: a folder for each way of testing, below them what they share, and nothing in between."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.shared.sources import parsed

TESTS = Path(__file__).parents[1]
SHARED = "shared"
MODULES = [file.relative_to(TESTS) for file in sorted(TESTS.rglob("*.py"))]


def _imported(source: str) -> Iterator[str]:
    """The modules of the tests that this one imports, also within its functions."""
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("tests."))


def _folder(module: str) -> str:
    return module.split(".")[1]


def _strays(module: Path) -> list[str]:
    """What it should not import: from a folder that is not its own, or from a module of tests."""
    allowed = {SHARED, *module.parts[:-1][:1]}
    names = _imported((TESTS / module).read_text(encoding="utf-8"))
    return [name for name in names if _folder(name) not in allowed or ".test_" in name]


def test_a_test_imports_from_its_own_folder_and_from_what_all_share() -> None:
    assert {str(module): strays for module in MODULES if (strays := _strays(module))} == {}


def test_an_import_is_found_wherever_it_stands_and_whatever_its_form() -> None:
    source = (
        "import tests.faults.mutants\ndef late():\n    from tests.e2e import conftest\n    from tests import faults\nimport os\n"
    )
    assert [_folder(name) for name in _imported(source)] == ["faults", "e2e", "faults"]
