"""Clocks that are wrong: Debian's libfaketime moves the time of a process that is started with it, and leaves durations alone."""

from collections.abc import Mapping
from pathlib import Path

import pytest


def wrong_by(seconds: int) -> Mapping[str, str]:
    """What the environment of a process has to say for its clock to be so far ahead; skips the test where nothing can do it."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("not proven: that a process whose clock is wrong does what it should (apt-get install libfaketime)")
    return {"LD_PRELOAD": str(found[0]), "FAKETIME": f"{seconds:+d}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
