"""The environment of its own that the relay's rival gets, made from `requirements/bench.txt` when first needed."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from deploy.cli.errors import CommandError, ExitCode
from deploy.local.state import ROOT

_LOCK: Final = ROOT / "requirements" / "bench.txt"


def bench_python(say: Callable[[str], None]) -> Path:
    """Return the environment's Python, once everything in the lock is installed beside it."""
    folder = Path(sys.prefix) / "share" / "cartwright" / "bench"
    python, stamp = folder / "bin" / "python", folder / "installed"
    wanted = hashlib.sha256(_LOCK.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        say(f"installing {_LOCK.relative_to(ROOT)}, once (a minute or so)")
        _install(folder, python)
        stamp.write_text(wanted)
    return python


def _install(folder: Path, python: Path) -> None:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        raise CommandError("bench relay needs uv to install what it compares with: pip install uv", ExitCode.ENVIRONMENT)
    _run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
    _run(uv, "pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", str(_LOCK))


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=sys.stderr, check=False)  # noqa: S603 - our own command
    if done.returncode:
        raise CommandError(
            f"{' '.join(command[:3])} failed: check the network, and the package index that uv is set up for",
            ExitCode.ENVIRONMENT,
        )
