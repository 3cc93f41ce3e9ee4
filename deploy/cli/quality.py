"""`test`, `check` and `fmt`: what a change has to pass, exactly as the hosted checks run it."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from deploy.cli.errors import ExitCode, verb
from deploy.cli.output import progress

CHECKS: Final = {
    "ruff check": ("ruff", "check"),
    "ruff format": ("ruff", "format", "--check"),
    "mypy": ("mypy",),
    "import-linter": ("deploy.cli.imports",),
    "sizes": ("deploy.cli.sizes",),
    "documents": ("deploy.cli.documents", "--check"),
    "contracts": ("deploy.cli.contracts", "--check"),
    "migrations": ("deploy.cli.migrations",),
}


@verb
def check() -> int:
    """Run ruff, mypy and import-linter, and compare sizes, documents and events.

    No module and no function is longer than it may be, the documents say what the code does, and no event breaks who reads it.
    """
    say = progress()
    failed = [name for name, command in CHECKS.items() if _run(name, *command)]
    say(f"failed: {', '.join(failed)}" if failed else "all checks pass")
    return ExitCode.NOT_SO if failed else ExitCode.DONE


@verb
def fmt() -> int:
    """Format the code, repair what ruff can, and write the generated documents and contracts anew."""
    repaired = _run("ruff check --fix", "ruff", "check", "--fix-only", "--quiet")
    formatted = _run("ruff format", "ruff", "format")
    written = [_run(name, f"deploy.cli.{name}") for name in ("documents", "contracts")]
    return max(written) or formatted or repaired


@verb
def run_tests(
    paths: Annotated[list[str] | None, typer.Argument(metavar="PATH…", help="Tests, and pytest options after --.")] = None,
    *,
    long: Annotated[bool, typer.Option("--long", help="The long proofs too.")] = False,
    cluster: Annotated[bool, typer.Option("--cluster", help="The chart on a real API server of Kubernetes too.")] = False,
    crash_points: Annotated[bool, typer.Option("--crash-points", help="Kill at every step, not at a sample.")] = False,
    mutants: Annotated[bool, typer.Option("--mutants", help="Test the tests: PATH is code, changed a line at a time.")] = False,
    json: Annotated[bool, typer.Option("--json", help="With --mutants: one JSON object on stdout.")] = False,
) -> int:
    """Run the tests.

    They get a Postgres and a Kafka of their own; tests/unit alone needs neither.
    """
    from deploy.local import testing

    if mutants:
        return asyncio.run(testing.play_mutants(paths or [], is_long=long, is_json=json, say=progress()))
    asked = {"--long": long, "--cluster": cluster, "--crash-points": crash_points}
    options = [option for option, is_asked in asked.items() if is_asked]
    chosen = list(paths or [])
    return asyncio.run(testing.run_tests([*options, *chosen], with_stack=testing.needs_stack(chosen), say=progress()))


def _run(name: str, module: str, *arguments: str) -> int:
    from deploy.local.state import ROOT

    print(f"== {name}", file=sys.stderr, flush=True)
    return subprocess.run([sys.executable, "-m", module, *arguments], cwd=Path(ROOT), check=False).returncode  # noqa: S603
