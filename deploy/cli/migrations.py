"""What a migration may do while processes of the version before still run: add, lock nothing for long, and take nothing away.

`python -m deploy.cli.migrations` puts the statements of every migration that is not released yet before squawk, a linter that
knows what PostgreSQL locks for how long, and what an older process still asks for. `services/released.json` names each
service's last migration that is out: those up to it change no more.
"""

import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from deploy.cli.errors import ExitCode
from deploy.local.state import ROOT
from services import SERVICES

RELEASED: Final = ROOT / "services" / "released.json"
EXCLUDED: Final = (
    "require-lock-timeout",  # `migrate` sets it
    "require-statement-timeout",  # a statement that takes long holds no lock that anybody waits for, by the rules below
    "ban-drop-constraint",  # an older process misses none
    "prefer-bigint-over-int",
    "prefer-bigint-over-smallint",
)
POSTGRES: Final = "18"


def unreleased(root: Path, released: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """Yield every migration that is not out, with the SQL that it runs."""
    for service in SERVICES:
        for file in sorted((root / service / "migrations" / "versions").glob("*.py")):
            if file.stem.partition("_")[0] > released[service]:
                yield file, _statements(file)


def refused(statements: str) -> Iterator[str]:
    """Yield why an older process, or whoever waits for a lock, could not live with these statements."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(f"BEGIN;\n{statements}\nCOMMIT;\n")
        file.flush()
        options = ["--reporter", "json", "--pg-version", POSTGRES, "--exclude", ",".join(EXCLUDED)]
        squawk = Path(sys.executable).with_name("squawk")
        told = subprocess.run([squawk, *options, file.name], capture_output=True, text=True, check=False)  # noqa: S603
    if not told.stdout.strip():
        raise RuntimeError(f"squawk says nothing: {told.stderr}")
    found: list[dict[str, Any]] = json.loads(told.stdout)
    for each in found:
        yield f"line {each['line']} of its SQL: {each['rule_name']}: {each['message']} {each.get('help') or ''}".rstrip()


def _statements(file: Path) -> str:
    """What a migration runs, by Alembic's own word."""
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    written = io.StringIO()
    context = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True, "output_buffer": written})
    found: dict[str, Any] = {}
    with Operations.context(context):
        exec(compile(file.read_text(), str(file), "exec"), found)  # noqa: S102 - a migration of ours
        found["upgrade"]()
    return written.getvalue()


def main() -> int:
    """Say what is refused, line by line."""
    released = json.loads(RELEASED.read_text())
    wrong = [
        f"{file.relative_to(ROOT)}: {why}"
        for file, statements in unreleased(ROOT / "services", released)
        for why in refused(statements)
    ]
    for each in wrong:
        print(each)
    return ExitCode.NOT_SO if wrong else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
