"""Debian's part of the image: packages of a lock, each held to its hash, and of each the files that a process needs."""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.image.layers import Entry

HERE: Final = Path(__file__).parent
NAMES: Final = HERE / "packages.yaml"
LOCK: Final = HERE / "packages.lock.json"
CERTIFICATES: Final = "etc/ssl/certs/ca-certificates.crt"

_LEFT_OUT: Final = (
    *("usr/share/man/", "usr/share/locale/", "usr/share/lintian/", "usr/share/bash-completion/", "usr/share/applications/"),
    *("usr/share/pixmaps/", "usr/share/binfmts/", "usr/share/info/", "usr/share/base-files/", "usr/sbin/", "etc/update-motd.d/"),
    *("usr/lib/python3.11/test/", "usr/lib/python3.11/pydoc_data/", "usr/lib/python3.11/lib2to3/", "etc/profile.d/"),
)
_PROGRAMS: Final = frozenset({"usr/bin/python3.11"})
"""All that can be run. What else a package has of that kind is left out."""
_MERGED: Final = ("bin/", "sbin/", "lib/", "lib64/")
"""These are links into /usr, as on every Debian of today; some packages still name the old places."""


class LockError(Exception):
    """The packages of the lock are not to be had as they are locked."""


@dataclass(frozen=True, slots=True)
class Package:
    """One package of the lock."""

    name: str
    version: str
    architecture: str
    sha256: str

    @property
    def wanted(self) -> str:
        """How apt is asked for it."""
        return f"{self.name}={self.version}"


def locked() -> list[Package]:
    """The lock's packages for this machine's architecture."""
    every: dict[str, list[dict[str, str]]] = json.loads(LOCK.read_text(encoding="utf-8"))
    here = architecture()
    if here not in every:
        raise LockError(f"{LOCK.name} has no packages for {here}: python -m deploy.image lock")
    return [Package(architecture=here, **each) for each in every[here]]


def architecture() -> str:
    """What Debian calls this machine."""
    return _told("dpkg", "--print-architecture").strip()


def lock(folder: Path) -> None:
    """Lock the newest there are, for this machine's architecture; what is locked for others stays."""
    import yaml

    names: list[str] = yaml.safe_load(NAMES.read_text(encoding="utf-8"))
    found = []
    for name in names:
        file = _fetched(name, folder)
        version = _told("dpkg-deb", "--field", str(file), "Version").strip()
        found.append({"name": name, "version": version, "sha256": _hash(file)})
    every = json.loads(LOCK.read_text(encoding="utf-8")) if LOCK.exists() else {}
    LOCK.write_text(json.dumps(every | {architecture(): found}, indent=1) + "\n", encoding="utf-8")


def entries(packages: list[Package], cache: Path) -> Iterator[Entry]:
    """Every file of the packages that the image has."""
    cache.mkdir(parents=True, exist_ok=True)
    roots: dict[str, bytes] = {}
    for package in packages:
        for entry in _unpacked(_checked(package, cache)):
            if entry.name.startswith("usr/share/ca-certificates/"):
                roots[entry.name] = entry.content
            elif _is_kept(entry):
                yield entry
    yield Entry(CERTIFICATES, content=b"".join(roots[name] for name in sorted(roots)))
    yield from (Entry(place.rstrip("/"), link=f"usr/{place.rstrip('/')}") for place in _MERGED)
    yield Entry("usr/bin/python3", link="python3.11")


def newest(name: str, folder: Path) -> Iterator[Entry]:
    """Every file of the newest there is of a package, which no lock holds. Raises LockError."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        file = _fetched(name, folder)
    except (OSError, subprocess.CalledProcessError) as error:
        raise LockError(f"{name} is not to be had: apt-get download") from error
    yield from _unpacked(file)


def _checked(package: Package, cache: Path) -> Path:
    kept = cache / f"{package.sha256}.deb"
    if not kept.exists():
        try:
            file = _fetched(package.wanted, cache)
        except subprocess.CalledProcessError as error:
            raise LockError(f"{package.wanted} is not to be had any more: python -m deploy.image lock") from error
        if _hash(file) != package.sha256:
            raise LockError(f"{package.wanted} is not what was locked")
        file.replace(kept)
    return kept


def _fetched(wanted: str, folder: Path) -> Path:
    """Have apt fetch a package, from wherever this machine's apt takes them."""
    inner = folder / f"fetching-{wanted.partition('=')[0]}"
    inner.mkdir(parents=True, exist_ok=True)
    for old in inner.iterdir():
        old.unlink()
    _told("apt-get", "download", "--quiet", "-o", "APT::Sandbox::User=root", wanted, cwd=inner)
    [file] = inner.glob("*.deb")
    return file


def _unpacked(file: Path) -> Iterator[Entry]:
    """A package is an ar archive, in which one member is a tar of its files."""
    members = dict(_members(file.read_bytes()))
    [content] = [value for name, value in members.items() if name.startswith("data.tar")]
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar:
            name = _placed(member.name)
            if member.issym():
                yield Entry(name, link=member.linkname)
            elif member.isfile() or member.islnk():
                taken = tar.extractfile(member)
                assert taken is not None
                yield Entry(name, content=taken.read(), is_program=bool(member.mode & 0o100))


def _members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    at = 8
    while at < len(archive):
        name, size = archive[at : at + 16].decode().strip().rstrip("/"), int(archive[at + 48 : at + 58])
        yield name, archive[at + 60 : at + 60 + size]
        at += 60 + size + size % 2


def _placed(name: str) -> str:
    place = name.removeprefix("./")
    return f"usr/{place}" if place.startswith(_MERGED) else place


def _is_kept(entry: Entry) -> bool:
    name = entry.name
    if name.startswith("usr/share/doc/"):
        return name.endswith("/copyright")
    if name.startswith("usr/bin/"):
        return name in _PROGRAMS
    return not name.startswith(_LEFT_OUT)


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _told(*command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, check=True, capture_output=True, text=True)
    return done.stdout
