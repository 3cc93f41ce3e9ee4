"""The command chooses the Python it runs on, or takes the one that it is told to."""

import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.local.state import ROOT

NEEDED = ("cartwright", "requirements/dev.txt", "requirements/uv.txt")


@pytest.mark.parametrize("named", ["/nowhere/python", "/bin/true"])
def test_what_is_no_python_is_refused_by_name_and_nothing_is_made(named: str, tmp_path: Path) -> None:
    for file in NEEDED:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "CARTWRIGHT_PYTHON": named}
    run = subprocess.run([tmp_path / "cartwright", "status"], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 3
    assert run.stderr == (
        f"cartwright: CARTWRIGHT_PYTHON names {named}, which is no Python of 3.11 or newer with its venv module\n"
    )
    assert not (tmp_path / ".venv").exists()
