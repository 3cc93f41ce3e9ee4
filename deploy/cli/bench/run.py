"""Starts the servers, has a child process measure on them, and prints what it found.

The child is a fresh process: nothing of the command line runs in it. The relay is compared with `faststream-outbox`,
so its child runs in the environment that has that; both have the versions of the same lock.
"""

import asyncio
import json as jsonlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from deploy.cli.bench.environment import bench_python
from deploy.cli.bench.report import print_figures, print_report
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import print_json, progress
from deploy.local.environment import child_environment, refuse_unknown_variables, variable
from deploy.local.infrastructure import PORTS, Infrastructure
from deploy.local.ports import choose_ports
from deploy.local.state import Home, default_home

Subject = Literal["relay", "inbox", "payments"]

_LINE_BYTES: Final = 1 << 20


def run(subject: Subject, options: Mapping[str, int], *, json: bool) -> int:
    """Measure one part of the kernel and print the figures."""
    say = progress()
    python = bench_python(say) if subject == "relay" else Path(sys.executable)
    module = f"deploy.cli.bench.{subject}"
    arguments = [f"--{name}={value}" for name, value in options.items()]
    figures = asyncio.run(_measure([str(python), "-P", "-m", module, *arguments]))
    if json:
        print_json(figures)
    elif subject == "payments":
        print_figures(figures)
    else:
        print_report(figures)
    return ExitCode.DONE


async def _measure(command: Sequence[str]) -> dict[str, Any]:
    """Run the child on servers of its own, which are empty before and gone after."""
    refuse_unknown_variables()
    say = progress()
    home = Home(default_home() / "bench")
    home.path.mkdir(parents=True, exist_ok=True)
    with home.hold():
        home.prepare()
        _clear(home)
        infrastructure = Infrastructure(
            home,
            choose_ports(PORTS, {}, say, spread=True),
            postgres_admin_url=variable("POSTGRES_ADMIN_URL"),
            kafka_bootstrap=variable("KAFKA_BOOTSTRAP_SERVERS"),
            access="open",  # it measures programs of its own, on topics of its own
            say=say,
            on_exit=lambda child: say(str(child.ended())),
        )
        try:
            await infrastructure.start()
            return await _figures(command, infrastructure)
        finally:
            await infrastructure.stop()
            _clear(home)


async def _figures(command: Sequence[str], infrastructure: Infrastructure) -> dict[str, Any]:
    servers = {
        "POSTGRES_ADMIN_URL": infrastructure.admin_url,
        "KAFKA_BOOTSTRAP_SERVERS": infrastructure.bootstrap_servers,
        "LOG_LEVEL": "warning",
    }
    process = await asyncio.create_subprocess_exec(
        *command, env=child_environment(servers), stdout=asyncio.subprocess.PIPE, limit=_LINE_BYTES
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        await process.wait()  # Ctrl-C reached it too
        raise
    if process.returncode:
        raise CommandError("the measurement failed: see the messages above")
    figures: dict[str, Any] = jsonlib.loads(output)
    return figures


def _clear(home: Home) -> None:
    """Give the disk back: gigabytes, after millions of rows. The logs stay."""
    for folder in ("postgres", "kafka"):
        shutil.rmtree(home.path / folder, ignore_errors=True)
