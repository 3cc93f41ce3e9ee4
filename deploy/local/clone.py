"""The history of this clone, as git tells it."""

import io
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from deploy.local.errors import StackError
from deploy.local.state import ROOT

_COMMIT: Final = ("rev-parse", "--verify", "--quiet", "--end-of-options")


class CloneError(StackError):
    """Git knows nothing of what it is asked about."""


def commit_of(name: str) -> str:
    """Return the commit that a name stands for. Raises CloneError when it stands for none."""
    return git(*_COMMIT, f"{name}^{{commit}}", about=name).decode().strip()


@contextmanager
def archive(commit: str, *folders: str) -> Iterator[tarfile.TarFile]:
    """Open the files of a commit, or of some of its folders. Raises CloneError when there is no such commit."""
    with tarfile.open(fileobj=io.BytesIO(git("archive", "--format=tar", commit, *folders, about=commit))) as files:
        files.extraction_filter = getattr(tarfile, "data_filter", None)  # Debian's Python 3.11 has none and wants none
        yield files


def git(*arguments: str, about: str = "HEAD") -> bytes:
    """Return what git answers. Raises CloneError when it does not know the commit that this is about, StackError without git."""
    try:
        done = subprocess.run(("git", "-C", str(ROOT), *arguments), capture_output=True, check=False)
    except FileNotFoundError as error:
        raise StackError("this needs git: install it") from error
    if done.returncode:
        raise CloneError(f"git knows no commit {about!r} in {ROOT}")
    return done.stdout
