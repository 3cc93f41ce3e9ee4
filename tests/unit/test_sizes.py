"""What the check of sizes tells, and what it leaves alone."""

from pathlib import Path

import pytest

from deploy.cli.sizes import too_long


def _function(lines: int, kind: str = "def") -> str:
    return f"{kind} work():\n" + "    pass\n" * (lines - 1)


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_function_of_61_lines_and_a_module_of_401_are_told(tmp_path: Path, kind: str) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "long.py").write_text("x = 1\n\n" + _function(61, kind))
    (tmp_path / "module.py").write_text("x = 1\n" * 401)
    assert [str(each) for each in too_long(tmp_path)] == [
        "module.py:1: module, 401 lines of 400",
        "tests/long.py:3: work, 61 lines of 60",
    ]


def test_what_is_as_long_as_it_may_be_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "function.py").write_text(_function(60))
    (tmp_path / "module.py").write_text("x = 1\n" * 400)
    (tmp_path / "decorated.py").write_text("@decorated(\n" + "    1,\n" * 20 + ")\n" + _function(60))
    assert list(too_long(tmp_path)) == []


def test_a_long_function_within_another_and_within_a_class_is_told_too(tmp_path: Path) -> None:
    inner = "".join(f"        {line}\n" for line in _function(61).splitlines())
    (tmp_path / "nested.py").write_text(f"class Thing:\n    def outer(self):\n{inner}        return 1\n")
    assert [each.what for each in too_long(tmp_path)] == ["outer", "work"]


def test_hidden_folders_and_other_files_are_nobodys_code(tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "module.py").write_text("x = 1\n" * 401)
    (tmp_path / "table.txt").write_text("x = 1\n" * 401)
    assert list(too_long(tmp_path)) == []
