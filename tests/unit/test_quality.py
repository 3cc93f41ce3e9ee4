"""That what `check` runs can fail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.state import ROOT

RULE = """[tool.importlinter]
root_package = "shop"

[[tool.importlinter.contracts]]
name = "the till knows nothing of the shelf"
type = "forbidden"
source_modules = ["shop.till"]
forbidden_modules = ["shop.shelf"]
"""


@pytest.mark.parametrize(("till", "code"), [("import shop.shelf\n", 1), ("", 0)])
def test_an_import_that_a_rule_forbids_fails_the_check_of_imports(tmp_path: Path, till: str, code: int) -> None:
    (tmp_path / "pyproject.toml").write_text(RULE)
    (tmp_path / "shop").mkdir()
    for name, text in (("__init__", ""), ("till", till), ("shelf", "")):
        (tmp_path / "shop" / f"{name}.py").write_text(text)
    command = [sys.executable, "-P", "-m", "deploy.cli.imports"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "the till knows nothing of the shelf" in done.stdout
