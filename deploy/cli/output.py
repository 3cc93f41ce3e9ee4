"""Where verbs write: results to stdout, progress to stderr, so that `--json` output can be piped."""

import json
import sys
import time
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console


def print_json(result: dict[str, Any]) -> None:
    """Print a verb's one JSON object."""
    print(json.dumps(result, indent=2))


def progress() -> "Callable[[str], None]":
    """Return a function that tells a line of progress on stderr, with the seconds since now."""
    begun = time.monotonic()

    def say(message: str) -> None:
        elapsed = f"{time.monotonic() - begun:5.1f} s"
        _console().print(elapsed, style="dim", end="  ")
        _console().print(message, markup=False)

    return say


@cache
def _console() -> "Console":
    from rich.console import Console  # which takes longer than what a verb does that has nothing to tell

    return Console(stderr=True, highlight=False, soft_wrap=True)


def echo(message: str) -> None:
    """Tell a line on stderr as it is."""
    print(message, file=sys.stderr)
