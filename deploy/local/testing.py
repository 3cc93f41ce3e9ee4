"""Runs the tests, with a PostgreSQL server and a Kafka cluster that are theirs alone."""

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from deploy.local.environment import python, refuse_unknown_variables, variable
from deploy.local.infrastructure import PORTS, Infrastructure
from deploy.local.ports import choose_ports
from deploy.local.processes import Child
from deploy.local.state import ROOT, Home, default_home

_PYTEST: Final = ("-n", "3", "--dist", "loadfile", "--no-loadscope-reorder", "--import-mode=importlib")
"""In the order of their folders: those of one that share a stack come one after the other."""
_MUTANTS: Final = (
    "-p",
    "tests.mutation.plugin",
    "-p",
    "no:xdist",
    "-p",
    "no:cacheprovider",
    "-s",
    "-q",
    "--import-mode=importlib",
)
_BRIEFLY, _AT_LENGTH = 40, 300
"""So many mutants are played."""
_WITHOUT_SERVERS: Final = tuple(ROOT / "tests" / folder for folder in ("unit", "docs", "contract", "mutation"))


def needs_stack(arguments: Sequence[str]) -> bool:
    """Tell whether any test that needs servers is asked for; naming no test asks for all."""
    tests = [Path(test.partition("::")[0]).resolve() for test in arguments if not test.startswith("-")]
    paths = [path for path in tests if path.exists()]
    return not paths or not all(any(map(path.is_relative_to, _WITHOUT_SERVERS)) for path in paths)


async def play_mutants(paths: Sequence[str], *, is_long: bool, is_json: bool, say: Callable[[str], None]) -> int:
    """Change the code one line at a time and see whether the tests notice: a few lines, or many of these paths or of all."""
    is_brief = not paths and not is_long
    options = [f"--mutants-count={_BRIEFLY if is_brief else _AT_LENGTH}", *(f"--mutants-of={path}" for path in paths)]
    options += [*(["--mutants-brief"] if is_brief else []), *(["--mutants-json"] if is_json else [])]
    return await run_tests(options, with_stack=True, say=say, how=_MUTANTS)


async def run_tests(
    arguments: Sequence[str], *, with_stack: bool, say: Callable[[str], None], how: Sequence[str] = _PYTEST
) -> int:
    """Run pytest and return its exit code."""
    if not with_stack:
        return await _pytest([*how, *arguments], {})
    refuse_unknown_variables()
    home = Home(default_home() / "test")
    home.path.mkdir(parents=True, exist_ok=True)
    with home.hold():
        _clear(home)
        home.prepare()
        infrastructure = _infrastructure(home, say)
        try:
            await infrastructure.start()
            servers = {
                "CARTWRIGHT_POSTGRES_ADMIN_URL": infrastructure.admin_url,
                "CARTWRIGHT_KAFKA_BOOTSTRAP_SERVERS": infrastructure.bootstrap_servers,
            }
            return await _pytest([*how, *arguments], servers)
        finally:
            await infrastructure.stop()


def _infrastructure(home: Home, say: Callable[[str], None]) -> Infrastructure:
    def crashed(child: Child) -> None:
        say(str(child.ended()))

    return Infrastructure(
        home,
        choose_ports(PORTS, {}, say, spread=True),
        postgres_admin_url=variable("POSTGRES_ADMIN_URL"),
        kafka_bootstrap=variable("KAFKA_BOOTSTRAP_SERVERS"),
        # Most tests make topics and groups of their own, under prefixes that nobody could have been granted anything on.
        # Those about rights start a broker that has some.
        access="open",
        say=say,
        on_exit=crashed,
    )


async def _pytest(arguments: Sequence[str], servers: dict[str, str]) -> int:
    environment = {name: value for name, value in os.environ.items() if name != "CARTWRIGHT_HOME"}
    command = python("pytest", *arguments)
    process = await asyncio.create_subprocess_exec(*command, env=environment | servers)
    try:
        return await process.wait()
    except asyncio.CancelledError:
        # Ctrl-C reached pytest too: let it report before its servers go.
        await process.wait()
        raise


def _clear(home: Home) -> None:
    """Begin with empty servers; what the last run left is only looked at after a failure."""
    for entry in home.path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != "lock":
            entry.unlink()
