"""Shows log files, one or several, as they grow."""

import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

_LINES = 100
_POLL_SECONDS = 0.2


def show_logs(files: Sequence[Path], *, follow: bool) -> None:
    """Print the last lines of each file and, when following, what is appended until Ctrl-C."""
    opened = [(file.stem, file.open(errors="replace")) for file in files]
    for name, log in opened:
        for line in deque(log, _LINES // len(opened) + 1):
            _print(name, line, alone=len(opened) == 1)
    while follow:
        for name, log in opened:
            _print_new(name, log, alone=len(opened) == 1)
        time.sleep(_POLL_SECONDS)


def _print_new(name: str, log: TextIO, *, alone: bool) -> None:
    for line in log:
        _print(name, line, alone=alone)


def _print(name: str, line: str, *, alone: bool) -> None:
    text = line.rstrip() if alone else f"{name:<16} {line.rstrip()}"
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
