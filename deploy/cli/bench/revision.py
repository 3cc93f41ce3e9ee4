"""The code of a revision: this clone as it lies here, or another one of its history in a folder of its own."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.cli.bench.environment import python_with
from deploy.cli.errors import CommandError, ExitCode
from deploy.local import clone
from deploy.local.clone import CloneError
from deploy.local.state import ROOT

_LOCK: Final = Path("requirements") / "local.txt"
"""What a stack needs to run."""


@dataclass(frozen=True, slots=True)
class Revision:
    """Code that can be run, and which it is."""

    commit: str
    folder: Path
    python: Path
    is_changed: bool = False
    """Whether files differ from those of the commit."""

    def as_json(self) -> dict[str, Any]:
        """What a figure says of it."""
        return {"commit": self.commit, "changed": self.is_changed}


def this_revision() -> Revision:
    """What runs here. Raises CommandError outside of a clone."""
    return Revision(commit_of("HEAD"), ROOT, Path(sys.executable), is_changed=bool(clone.git("status", "--porcelain")))


def unpacked(commit: str, home: Path, say: Callable[[str], None]) -> Revision:
    """Lay the code of a commit into a state directory. It gets a Python of its own only if it is locked to other packages."""
    folder = home / "code"
    shutil.rmtree(folder, ignore_errors=True)
    with clone.archive(commit) as files:
        files.extractall(folder)
    return Revision(commit, folder, _python(folder / _LOCK, home, say))


def commit_of(name: str) -> str:
    """Return the commit that a name stands for. Raises CommandError when it stands for none."""
    try:
        return clone.commit_of(name)
    except CloneError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error


def _python(lock: Path, home: Path, say: Callable[[str], None]) -> Path:
    if not lock.exists():
        raise CommandError(f"that revision has no {_LOCK}: it is too old to be run beside this one", ExitCode.USAGE)
    if lock.read_bytes() == (ROOT / _LOCK).read_bytes():
        return Path(sys.executable)
    return python_with(lock, home / "python", say)
