"""Environments of their own for what is compared with, each made from its lock when first needed."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from deploy.cli.errors import CommandError, ExitCode
from deploy.local.environment import installer
from deploy.local.state import ROOT

_LOCK: Final = ROOT / "requirements" / "bench.txt"


def bench_python(say: Callable[[str], None]) -> Path:
    """Return the environment's Python, once everything in the lock is installed beside it."""
    return python_with(_LOCK, Path(sys.prefix) / "share" / "cartwright" / "bench", say)


def python_with(lock: Path, folder: Path, say: Callable[[str], None]) -> Path:
    """Return the Python of an environment that has what a lock names, and nothing else; it is made when first needed."""
    python, stamp = folder / "bin" / "python", folder / "installed"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        say(f"installing {lock.parent.name}/{lock.name}, once (a minute or so)")
        _install(lock, folder, python)
        stamp.write_text(wanted)
    return python


def _install(lock: Path, folder: Path, python: Path) -> None:
    uv = installer()
    if uv is None:
        raise CommandError("this benchmark needs uv to install what it compares with: pip install uv", ExitCode.ENVIRONMENT)
    _run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
    _run(uv, "pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", str(lock))


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=sys.stderr, check=False)  # noqa: S603 - our own command
    if done.returncode:
        raise CommandError(
            f"{' '.join(command[:3])} failed: check the network, and the package index that uv is set up for",
            ExitCode.ENVIRONMENT,
        )
