"""Whatever a process writes to stderr is a line of JSON, and no process ends because nobody takes it."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from libs.common.version import VERSION
from tests.unit.enough import ENOUGH

ROOT = Path(__file__).parents[3]
PROGRAM = """
import logging, threading, warnings
from libs.common.processes.running import begin
from libs.common.settings import Settings
begin("cart", "api", Settings.read())
logging.getLogger("some.library").error("it is %s", "so")
warnings.warn("it grows old")
class Thing:
    def __del__(self): raise ValueError("of nobody")
Thing()
thread = threading.Thread(target=lambda: 1 / 0, name="aside")
thread.start(); thread.join()
print("it goes on", flush=True)
raise RuntimeError("the end")
"""

HELD_UP = """
import time
from libs.common.processes.running import begin, leave_within
from libs.common.settings import Settings
begin("cart", "worker", Settings.read())
leave_within(0.1)
time.sleep(600)
"""


def _ran(stderr: Any, program: str = PROGRAM) -> "subprocess.CompletedProcess[str]":
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        **{f"CARTWRIGHT_{name}": it for name, it in ENOUGH.items()},
    }
    command = [sys.executable, "-P", "-c", program]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True, check=False, timeout=60)


def test_every_line_is_json_whoever_writes_it() -> None:
    done = _ran(subprocess.PIPE)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert (done.returncode, done.stdout) == (1, "it goes on\n")
    assert all(line["service"] == "cart" and line["process"] == "api" and line["level"] for line in lines), lines
    said = [(line["event"], line.get("logger"), line.get("where")) for line in lines[1:]]
    assert [(event, logger) for event, logger, _ in said] == [
        ("library.said", "some.library"),
        ("library.said", "py.warnings"),
        ("process.failed", None),
        ("process.failed", None),
        ("process.failed", None),
    ]
    assert lines[1]["message"] == "it is so"
    assert [line["error"] for line in lines[3:]] == [
        "ValueError('of nobody')",
        "ZeroDivisionError('division by zero')",
        "RuntimeError('the end')",
    ]
    assert (said[3][2], "Traceback" in lines[4]["exception"]) == ("aside", True)


def test_the_first_line_says_what_runs_and_how_it_is_set_up_and_no_secret() -> None:
    done = _ran(subprocess.PIPE)
    first = json.loads(done.stderr.splitlines()[0])
    assert (first["event"], first["version"]) == ("process.started", VERSION)
    assert (first["settings"]["issuer"], first["settings"]["http_port"]) == (ENOUGH["ISSUER"], 8082)
    assert "hush" not in done.stderr
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


@pytest.mark.parametrize("place", ["a full disk", "a reader that is gone"])
def test_a_process_goes_on_when_its_lines_cannot_be_written(place: str) -> None:
    if place == "a full disk":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, descriptor = os.pipe()
        os.close(reading)
    try:
        done = _ran(descriptor)
    finally:
        os.close(descriptor)
    assert (done.returncode, done.stdout) == (1, "it goes on\n")


def test_a_process_that_is_held_up_ends_all_the_same_and_says_so() -> None:
    done = _ran(subprocess.PIPE, HELD_UP)
    last = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, last["event"], last["level"]) == (1, "process.cut_off", "error")
