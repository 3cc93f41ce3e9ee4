"""Files that only whoever has the key can read: any size comes back, and nothing that was done to them goes unnoticed."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.backup.errors import BackupError
from deploy.backup.sealed import PIECE_BYTES, Vault
from libs.common.sealing import MasterKey, MasterKeys

AT = datetime(2026, 11, 30, 10, tzinfo=UTC)
OURS, OTHERS = (MasterKey(bytes([number]) * 32) for number in (1, 2))
SIZE = 3 * PIECE_BYTES + 5
"""Of random bytes, which no compression makes smaller: four pieces."""


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "vault", MasterKeys(OURS))


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, SIZE])
def test_what_was_sealed_comes_back(vault: Vault, size: int) -> None:
    plain = os.urandom(size)
    vault.seal("a/b", [plain[: size // 3], plain[size // 3 :]], AT)
    assert b"".join(vault.opened("a/b")) == plain
    assert vault.at("a/b") == AT
    assert (vault.folder / "a/b").stat().st_mode & 0o777 == 0o600


def test_nothing_of_it_is_in_the_file(vault: Vault) -> None:
    plain = os.urandom(SIZE)
    vault.seal("it", [plain], AT)
    stored = (vault.folder / "it").read_bytes()
    assert not any(plain[begin : begin + 8] in stored for begin in range(0, 4096, 8))


def test_the_key_before_still_opens_what_it_sealed_and_another_does_not(vault: Vault) -> None:
    vault.seal("it", [b"plain"], AT)
    assert b"".join(Vault(vault.folder, MasterKeys(OTHERS, OURS)).opened("it")) == b"plain"
    with pytest.raises(BackupError, match="does not open"):
        next(Vault(vault.folder, MasterKeys(OTHERS)).opened("it"))


def _pieces(stored: bytes) -> tuple[bytes, list[bytes]]:
    """The head, and the pieces with their lengths."""
    begin = stored.index(b"\n", stored.index(b"\n") + 1) + 1
    head, pieces = stored[:begin], []
    while begin < len(stored):
        end = begin + 4 + int.from_bytes(stored[begin : begin + 4], "big")
        pieces.append(stored[begin:end])
        begin = end
    return head, pieces


def _flipped(stored: bytes) -> bytes:
    return stored[:-1] + bytes([stored[-1] ^ 1])


def _reordered(stored: bytes) -> bytes:
    head, (first, second, *rest) = _pieces(stored)
    return head + b"".join([second, first, *rest])


def _without_last(stored: bytes) -> bytes:
    head, pieces = _pieces(stored)
    return head + b"".join(pieces[:-1])


def _with_another_time(stored: bytes) -> bytes:
    return stored.replace(b"2026-11-30", b"2026-11-29")


WAYS: list[Callable[[bytes], bytes]] = [
    _flipped,
    _reordered,
    _without_last,
    _with_another_time,
    lambda stored: stored[:-1],
    lambda stored: _pieces(stored)[0],
    lambda stored: stored + _pieces(stored)[1][0],
    lambda _: b"",
]


@pytest.mark.parametrize("change", WAYS)
def test_whatever_is_done_to_it_is_noticed(vault: Vault, change: Callable[[bytes], bytes]) -> None:
    vault.seal("it", [os.urandom(SIZE)], AT)
    file = vault.folder / "it"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(BackupError):
        list(vault.opened("it"))


def test_a_file_in_the_place_of_another_does_not_open(vault: Vault) -> None:
    vault.seal("base", [b"of yesterday"], AT)
    (vault.folder / "base").rename(vault.folder / "other")
    with pytest.raises(BackupError):
        list(vault.opened("other"))


def test_what_could_not_be_finished_leaves_what_was_there(vault: Vault) -> None:
    def breaks() -> Iterator[bytes]:
        yield b"half"
        raise BackupError("the server went away")

    vault.seal("it", [b"whole"], AT)
    with pytest.raises(BackupError, match="went away"):
        vault.seal("it", breaks(), AT)
    assert b"".join(vault.opened("it")) == b"whole"
    assert [file.name for file in vault.folder.iterdir()] == ["it"]
