"""Builds the image: Debian's packages, the wheels and our code, a layer each, of which the last changes with every commit."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from deploy.image import debian, oci, python, sbom
from deploy.image.layers import Entry, packed
from deploy.local.clone import commit_of, git
from libs.common.version import VERSION

BILL: Final = "cartwright.cdx.json"
_LABEL: Final = "org.opencontainers.image"


class Built(NamedTuple):
    """An image, and where it lies."""

    folder: Path
    digest: str


def build(folder: Path, cache: Path, *, commit: str = "HEAD", say: Callable[[str], None] = print) -> Built:
    """Build it below the folder, with its bill of materials beside it. What was fetched is kept in the cache."""
    full = commit_of(commit)
    at = int(git("show", "--no-patch", "--format=%ct", full))
    packages = debian.locked()
    with tempfile.TemporaryDirectory() as scratch:
        say(f"{len(packages)} packages of Debian")
        base = packed([*debian.entries(packages, cache), *_people()], at)
        say("the locked wheels")
        installed = python.wheels(Path(scratch), packages[0].architecture)
        wheels = packed(python.compiled(python.wheel_entries(installed)), at)
        say(f"our code at {full[:12]}")
        code = packed(python.compiled(python.code_entries(full)), at)
        layers = [base, wheels, code]
        labels = _labels(full)
        made_by = ("debian: deploy/image/packages.lock.json", "wheels: requirements/runtime.txt", f"cartwright: {full}")
        config = oci.configuration(layers, made_by, labels, at, packages[0].architecture)
        image = oci.write(folder, layers, config, labels)
        (folder / BILL).write_text(sbom.bill(packages, installed, image, full, at), encoding="utf-8")
    return Built(folder, image)


def _labels(commit: str) -> dict[str, str]:
    return {
        f"{_LABEL}.title": "cartwright",
        f"{_LABEL}.description": "The purchase path: cart, checkout, payments and identity.",
        f"{_LABEL}.version": VERSION,
        f"{_LABEL}.revision": commit,
        f"{_LABEL}.licenses": "Apache-2.0",
        f"{_LABEL}.base.name": "debian",
    }


def _people() -> Iterator[Entry]:
    """Who there is: root, whom nothing runs as, and the one whom everything does. And where something is mounted."""
    user = f"cartwright:x:{oci.USER}:{oci.USER}::/tmp:/nonexistent\n"
    yield Entry("etc/passwd", content=f"root:x:0:0:root:/root:/nonexistent\n{user}".encode())
    yield Entry("etc/group", content=f"root:x:0:\ncartwright:x:{oci.USER}:\n".encode())
    yield Entry("etc/nsswitch.conf", content=b"hosts: files dns\n")
    for name in ("proc", "sys", "dev", "run", "usr/sbin", "etc/cartwright/secrets", "etc/cartwright/kafka"):
        yield Entry(name, folder_mode=0o755)
    yield Entry("tmp", folder_mode=0o1777)
