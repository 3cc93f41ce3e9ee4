"""Layers of an image: the same files are the same bytes, whoever packs them, when and where."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

OWNER: Final = 0
"""Who owns every file. Nobody runs as that, and nothing can be written by whom it runs as."""
_LEVEL: Final = 6


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, a symbolic link or an empty folder, by its place below the root."""

    name: str
    content: bytes = b""
    link: str = ""
    is_program: bool = False
    folder_mode: int = 0
    """Of an empty folder, which is there for others to mount something over."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as it is stored, and what its archive's digest is once it is unpacked."""

    stored: bytes
    unpacked_digest: str

    @property
    def digest(self) -> str:
        """The digest of what is stored."""
        return digest(self.stored)


def digest(content: bytes) -> str:
    """As OCI writes one."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def packed(entries: Iterable[Entry], at: int) -> Layer:
    """Pack files, all of them changed at the one time. Where two are of one name, the last is meant."""
    found = {entry.name: entry for entry in entries}
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder in sorted(_folders(found) - found.keys()):
            tar.addfile(_head(folder, tarfile.DIRTYPE, 0o755, at))
        for name in sorted(found):
            entry = found[name]
            if entry.folder_mode:
                tar.addfile(_head(name, tarfile.DIRTYPE, entry.folder_mode, at))
            elif entry.link:
                head = _head(name, tarfile.SYMTYPE, 0o777, at)
                head.linkname = entry.link
                tar.addfile(head)
            else:
                head = _head(name, tarfile.REGTYPE, 0o755 if entry.is_program else 0o644, at)
                head.size = len(entry.content)
                tar.addfile(head, io.BytesIO(entry.content))
    archive = written.getvalue()
    return Layer(gzip.compress(archive, _LEVEL, mtime=0), digest(archive))


def _folders(found: Iterable[str]) -> set[str]:
    return {str(folder) for name in found for folder in PurePosixPath(name).parents if str(folder) != "."}


def _head(name: str, kind: bytes, mode: int, at: int) -> tarfile.TarInfo:
    head = tarfile.TarInfo(name)
    head.type, head.mode, head.mtime = kind, mode, at
    head.uid = head.gid = OWNER
    return head


def files_of(layer: Layer) -> Iterator[str]:
    """The names of a layer's files."""
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer.stored))) as tar:
        yield from tar.getnames()
