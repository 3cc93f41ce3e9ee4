"""Debian's Prometheus and its promtool: those that are installed, or else the two programs of the package alone."""

import fcntl
import shutil
from pathlib import Path
from typing import Final

import pytest

from deploy.image.debian import LockError, newest

PROGRAMS: Final = ("prometheus", "promtool")


def program(name: str, folder: Path) -> Path:
    """Where it is, fetched into this folder at the first time; the test is skipped where it cannot be had."""
    if all(map(shutil.which, PROGRAMS)):
        return Path(shutil.which(name) or "")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all((folder / each).exists() for each in PROGRAMS):
            _fetch(folder)
    return folder / name


def _fetch(folder: Path) -> None:
    wanted = {f"usr/bin/{name}" for name in PROGRAMS}
    try:
        found = {entry.name: entry.content for entry in newest("prometheus", folder / "package") if entry.name in wanted}
    except LockError as error:
        pytest.skip(f"not proven: alerts fire when they should, and not when they should not ({error})")
    for name, content in found.items():
        file = folder / Path(name).name
        file.write_bytes(content)
        file.chmod(0o755)
    shutil.rmtree(folder / "package")
