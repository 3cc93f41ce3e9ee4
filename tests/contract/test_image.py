"""The image: the same commit is the same digest, it has no more than it needs, and runs where nothing can be written."""

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from deploy.image.build import BILL, Built, build
from deploy.image.debian import LockError
from deploy.image.layers import Entry, packed
from deploy.image.python import VERSION

pytestmark = pytest.mark.timeout(1_800)
FILES = [
    Entry("b/two", content=b"2"),
    Entry("a", link="b/two"),
    Entry("b/one", content=b"1", is_program=True),
    Entry("tmp", folder_mode=0o1777),
]
MOST_BYTES = 100_000_000
NOT_THERE = ("usr/bin/sh", "usr/bin/bash", "usr/bin/dash", "usr/bin/apt", "usr/bin/dpkg", "usr/bin/gcc", "usr/bin/pip3")


def test_the_same_files_are_the_same_bytes_in_whatever_order_they_come() -> None:
    one, other = packed(FILES, 1_700_000_000), packed(reversed(FILES), 1_700_000_000)
    assert (one.digest, one.unpacked_digest) == (other.digest, other.unpacked_digest)
    assert one.digest != one.unpacked_digest
    assert packed(FILES, 1_700_000_001).digest != one.digest
    assert packed([*FILES, Entry("b/two", content=b"3")], 1_700_000_000).digest != one.digest, "the last of a name is meant"


def test_nobody_who_runs_it_owns_a_file_and_programs_alone_can_be_run(tmp_path: Path) -> None:
    (file := tmp_path / "layer.tar.gz").write_bytes(packed(FILES, 1_700_000_000).stored)
    with tarfile.open(file) as tar:
        found = {member.name: (member.uid, oct(member.mode), member.mtime) for member in tar}
    assert found == {
        "a": (0, "0o777", 1_700_000_000),
        "b": (0, "0o755", 1_700_000_000),
        "b/one": (0, "0o755", 1_700_000_000),
        "b/two": (0, "0o644", 1_700_000_000),
        "tmp": (0, "0o1777", 1_700_000_000),
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Built:
    if not all(map(shutil.which, ("apt-get", "dpkg", "dpkg-deb"))) or sys.version_info[:2] != VERSION:
        pytest.skip("not proven: an image is built and run (it takes Debian's apt and dpkg, and Python 3.11)")
    try:
        return build(tmp_path_factory.mktemp("image"), request.config.cache.mkdir("image"), say=print)
    except LockError as error:
        pytest.skip(f"not proven: an image is built and run ({error})")


@pytest.mark.long("builds the image twice")
def test_an_image_that_is_built_twice_is_the_same_to_the_last_byte(built: Built, tmp_path: Path) -> None:
    again = build(tmp_path, tmp_path / "fetched", say=print)
    assert again.digest == built.digest
    assert (tmp_path / BILL).read_bytes() == (built.folder / BILL).read_bytes()


@pytest.mark.long("builds the image")
def test_an_image_is_small_runs_as_nobody_in_particular_and_says_what_it_is_made_of(built: Built, tmp_path: Path) -> None:
    manifest, root = _unpacked(built, tmp_path)
    assert sum(layer["size"] for layer in manifest["layers"]) < MOST_BYTES
    config = _blob(built, manifest["config"]["digest"])
    assert config["config"]["User"] == "10001:10001"
    assert [name for name in NOT_THERE if (root / name).exists()] == []
    assert not list(root.rglob("psutil")), "nothing of the local stack"
    bill = json.loads((built.folder / BILL).read_text())
    assert {"libssl3", "asyncpg", "cartwright"} <= {each["name"] for each in bill["components"]}


@pytest.mark.long("builds the image and runs it")
@pytest.mark.parametrize(
    "verb", [("--help",), ("serve", "cart", "api", "--print-environment"), ("gateway", "config", "/tmp/made")]
)
def test_a_verb_runs_in_the_image_with_nothing_else_there(built: Built, tmp_path: Path, verb: tuple[str, ...]) -> None:
    """What a process does with databases and a broker is not proven by this."""
    done = _run_in(built, tmp_path, *verb)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.long("builds the image and runs it")
def test_the_checker_of_invariants_finds_in_the_image_all_that_it_is_made_of(built: Built, tmp_path: Path) -> None:
    done = _run_in(built, tmp_path, "invariants")
    assert done.returncode == 3, done.stderr
    assert "no stack runs" in done.stderr, "it has been loaded, and looks for whom to ask"


def _run_in(built: Built, tmp_path: Path, *verb: str) -> "subprocess.CompletedProcess[str]":
    if shutil.which("bwrap") is None:
        pytest.skip("not proven: the image runs where nothing can be written (bwrap is not installed)")
    manifest, root = _unpacked(built, tmp_path)
    config = _blob(built, manifest["config"]["digest"])["config"]
    bound = ["--ro-bind", str(root), "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--clearenv"]
    environment = [part for each in config["Env"] for part in ("--setenv", *each.split("=", 1))]
    return subprocess.run(
        [
            "bwrap",
            "--unshare-user",
            "--uid",
            "10001",
            "--gid",
            "10001",
            "--unshare-net",
            *bound,
            *environment,
            *config["Entrypoint"],
            *verb,
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def _blob(built: Built, digest: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((built.folder / "blobs" / digest.replace(":", "/")).read_text())
    return found


def _unpacked(built: Built, root: Path) -> tuple[dict[str, Any], Path]:
    manifest = _blob(built, built.digest)
    for layer in manifest["layers"]:
        with tarfile.open(built.folder / "blobs" / layer["digest"].replace(":", "/")) as tar:
            tar.extractall(root)
    return manifest, root
