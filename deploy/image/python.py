"""Python's part of the image: the locked wheels, and our own code as a commit has it; both compiled beforehand."""

import marshal
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator
from importlib.util import MAGIC_NUMBER, source_hash
from pathlib import Path
from typing import Final

from deploy.image.layers import Entry
from deploy.local.clone import archive
from deploy.local.environment import installer
from deploy.local.state import ROOT

VERSION: Final = (3, 11)
"""The interpreter's, which compiles for no other."""
PACKAGES: Final = "usr/local/lib/python3.11/dist-packages"
CODE: Final = "opt/cartwright"
LOCK: Final = ROOT / "requirements" / "runtime.txt"
_PLATFORMS: Final = {"amd64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}
"""Which wheels are taken, whatever C library this machine has: the image's is newer."""
_UNCHECKED: Final = 0b01
_PARTS: Final = ("services", "libs", "deploy")
_LEFT_OUT: Final = ("deploy/local/fake_stripe/", "deploy/helm/", "deploy/image/", "deploy/compose/", "deploy/cli/bench/")
"""What makes a stack on a machine, or measures one, and what puts this image where it runs."""


class PythonError(Exception):
    """The image's Python cannot be made here; the message says what to change."""


def wheels(folder: Path, architecture: str) -> Path:
    """Install the locked wheels below a folder, as they are for the image: no script, no source to build."""
    uv = installer()
    if uv is None:
        raise PythonError("uv installs the wheels: pip install uv")
    version = ".".join(map(str, VERSION))
    target = folder / "wheels"
    subprocess.run(
        (
            *(uv, "pip", "install", "--quiet", "--target", str(target), "--python-version", version),
            *("--python-platform", _PLATFORMS[architecture]),
            *("--require-hashes", "--only-binary", ":all:", "--no-compile-bytecode", "--link-mode", "copy"),
            *("-r", str(LOCK)),
        ),
        check=True,
    )
    return target


def wheel_entries(target: Path) -> Iterator[Entry]:
    """Every file of the wheels. Scripts name an interpreter of this machine: nobody needs them."""
    for file in sorted(target.rglob("*")):
        name = file.relative_to(target).as_posix()
        if not file.is_file() or name.startswith(("bin/", ".lock")) or "__pycache__" in name:
            continue
        content = file.read_bytes()
        if name.endswith(".dist-info/RECORD"):
            content = b"".join(line for line in content.splitlines(keepends=True) if not line.startswith((b"bin/", b"../")))
        yield Entry(f"{PACKAGES}/{name}", content=content)


def code_entries(commit: str) -> Iterator[Entry]:
    """Our code as the commit has it, whatever lies in this folder."""
    with archive(commit, *_PARTS) as tar:
        for member in tar:
            if member.isfile() and not member.name.startswith(_LEFT_OUT):
                taken = tar.extractfile(member)
                assert taken is not None
                yield Entry(f"{CODE}/{member.name}", content=taken.read())


def compiled(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The files, and beside each module what Python would make of it if it could write there."""
    if sys.version_info[:2] != VERSION:
        raise PythonError(f"modules are compiled by Python {VERSION[0]}.{VERSION[1]}, and this is {sys.version.split()[0]}")
    found = list(entries)
    yield from found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what others wrote
        for entry in found:
            if entry.name.endswith(".py") and (made := _bytecode(entry)) is not None:
                folder, _, name = entry.name.rpartition("/")
                yield Entry(f"{folder}/__pycache__/{name.removesuffix('.py')}.cpython-311.pyc", content=made)


def _bytecode(entry: Entry) -> bytes | None:
    """What it compiles to (PEP 552), held to nothing: nobody can change the source. None for what this Python cannot read."""
    try:
        code = compile(entry.content, f"/{entry.name}", "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError):
        return None
    # In the format without references: with them, what is written depends on how often a constant is held in this process.
    same = marshal.dumps(code, 2)
    return MAGIC_NUMBER + _UNCHECKED.to_bytes(4, "little") + source_hash(entry.content) + same
