"""How long a module and a function may be, in code and tests alike: what is longer is two things.

`python -m deploy.cli.sizes` tells what is too long.
"""

import ast
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.cli.errors import ExitCode
from deploy.local.state import ROOT

MODULE_LINES: Final = 400
FUNCTION_LINES: Final = 60
"""From its `def` to its last line."""


@dataclass(frozen=True, slots=True)
class TooLong:
    """A module or a function that is too long."""

    file: Path
    line: int
    what: str
    count: int
    limit: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}, {self.count} lines of {self.limit}"


def too_long(root: Path) -> Iterator[TooLong]:
    """Yield what is too long in every Python file of a tree; its hidden folders are nobody's code."""
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            if name.endswith(".py"):
                file = Path(folder, name)
                yield from _in_module(file.relative_to(root), file.read_text(encoding="utf-8"))


def _in_module(file: Path, text: str) -> Iterator[TooLong]:
    if (count := len(text.splitlines())) > MODULE_LINES:
        yield TooLong(file, 1, "module", count, MODULE_LINES)
    for node in ast.walk(ast.parse(text, file.name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = (node.end_lineno or node.lineno) - node.lineno + 1
            if count > FUNCTION_LINES:
                yield TooLong(file, node.lineno, node.name, count, FUNCTION_LINES)


def main(arguments: Sequence[str]) -> int:
    """Tell what is too long, one a line; 1 when something is."""
    if arguments:
        print("usage: python -m deploy.cli.sizes", file=sys.stderr)
        return ExitCode.USAGE
    found = list(too_long(ROOT))
    for each in found:
        print(each)
    return ExitCode.NOT_SO if found else ExitCode.DONE


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
