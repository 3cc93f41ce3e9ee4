"""A fifth service, made by following docs/architecture.md alone, in a copy of this repository."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.cli.quality import CHECKS
from deploy.local.state import ROOT

PAGE = Path("docs") / "architecture.md"
CHAPTER = re.compile(r"^### A new service\n(?P<text>.*?)^##", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"(?:^`(?P<path>[^`\n]+)`:\n\n)?^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
PLACES = ["deploy/topics.yaml", "libs/common/contracts/notifications.py", "services/__init__.py"]
"""All that may be touched outside the service's own folder."""
GENERATED = re.compile(
    r"docs/contracts/.*\.json|docs/(architecture|access)\.md|README\.md|services/\w+/README\.md"
    r"|deploy/gateway/routes\.json|deploy/reference/pages/\w+\.json|deploy/(helm|compose)/.*\.(md|yaml|json|sql|sh)"
)
NEW = {"mypy": ("services/notifications", "libs/common/contracts/notifications.py")}
"""Where a check need not look at everything once more: the rest is as it was."""
ELSEWHERE = {"documents", "contracts", "sizes"}
"""What `fmt` has written a moment ago, as the page says, and what counts the lines of every file."""


@dataclass(frozen=True)
class Copy:
    """The repository as it lies here, in a folder of its own."""

    root: Path

    def run(self, *command: str, given: str | None = None) -> str:
        """Run a command there; what it said, if it went well."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        done = subprocess.run(
            command,
            cwd=self.root,
            env=environment | {"PYTHONPATH": str(self.root)},
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{given or ''}\n{done.stdout}"
        return done.stdout

    def python(self, *arguments: str) -> str:
        """Run Python there, on its code and the installation that both share."""
        return self.run(sys.executable, "-P", *arguments)

    def touched(self) -> set[str]:
        """Every file that differs from the repository."""
        self.run("git", "add", "--all")
        return set(self.run("git", "diff", "--cached", "--name-only", "HEAD").split())


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """A copy of what git knows or would, with the same installation."""
    copy = Copy(tmp_path / "copy")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy.root / name)
    (copy.root / ".venv").symlink_to(ROOT / ".venv")
    (copy.root / ".git" / "info").mkdir(parents=True)
    copy.run("git", "init", "--quiet")
    (copy.root / ".git" / "info" / "exclude").write_text(".venv\n")
    copy.run("git", "add", "--all")
    author = ("-c", "user.name=test", "-c", "user.email=test@example.test", "-c", "commit.gpgsign=false")
    copy.run("git", *author, "commit", "--quiet", "--message", "as it was")
    if (known := ROOT / ".mypy_cache").exists():
        shutil.copytree(known, copy.root / ".mypy_cache")
    return copy


def _steps() -> Iterator[tuple[str, str, str]]:
    """What the page says to do, in its order: the language of a block, the file that it is, and what stands in it."""
    chapter = CHAPTER.search((ROOT / PAGE).read_text(encoding="utf-8"))
    assert chapter is not None
    for block in BLOCK.finditer(chapter["text"]):
        yield block["language"], block["path"] or "", block["body"]


def _follow(copy: Copy) -> None:
    for language, path, body in _steps():
        if language == "sh":
            copy.run("sh", "-eu", given=body)
        elif language == "diff":
            copy.run("git", "apply", "-", given=body)
        else:
            file = copy.root / path
            assert path, f"a block of {language} without the name of its file:\n{body}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(body, encoding="utf-8")


@pytest.mark.long("type checking, a stack and tests of a copy: three minutes")
@pytest.mark.timeout(600)  # a minute of work for two cores, and others may want them
@pytest.mark.usefixtures("admin_url", "bootstrap_servers")
def test_following_the_page_makes_a_service_that_passes_the_checks_onboards_consumes_and_publishes(
    copy: Copy,
) -> None:
    _follow(copy)
    touched = copy.touched()
    elsewhere = {name for name in touched if not name.startswith("services/notifications/")}
    assert sorted(name for name in elsewhere if not GENERATED.fullmatch(name)) == PLACES
    files = {name.removeprefix("services/notifications/") for name in touched - elsewhere}
    smallest = {str(file.relative_to(ROOT / "services" / "cart")) for file in (ROOT / "services" / "cart").glob("*.*")}
    assert {name for name in files if "/" not in name} == smallest, "the same files as in every service"

    for name, command in CHECKS.items():
        if name not in ELSEWHERE:
            copy.python("-m", *command, *NEW.get(name, ()))
    proofs = ("tests/drills/fifth_service.py", "--quiet", "-p", "no:cacheprovider", "-p", "no:xdist")
    assert "2 passed" in copy.python("-m", "pytest", *proofs)
