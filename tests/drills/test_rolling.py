"""The version before and this one, side by side while people buy: forth on the schema of this one, and back again."""

import asyncio
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.cli.bench.revision import Revision, this_revision, unpacked
from deploy.local import clone
from deploy.local.clone import CloneError
from deploy.local.copies import processes
from deploy.local.services import HttpProcess
from deploy.local.stack import Stack
from libs.common.settings import PREFIX
from services import SERVICES
from tests.shared.custom import Blunt, Custom, shop_of
from tests.shared.market import Market, market_in, standing
from tests.shared.places import Templates

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.long("sixteen processes are replaced twice"),
    pytest.mark.timeout(1_800),
]

BEFORE = "565dadb"
"""What is taken for the version before while there is no tag."""
READY_SECONDS = 5
"""The chart's `minReadySeconds`: a gateway learns of who is new before the next one leaves."""
QUIET_SECONDS = 60
"""So long nothing is replaced, for comparison."""
TWICE = {f"{service}.{kind}": 2 for service in SERVICES for kind in ("api", "worker")}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def market(
    templates: Templates, bootstrap_servers: str, fresh_prefix: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Market]:
    prefix, home = fresh_prefix("rolling"), tmp_path_factory.mktemp("stack")
    async with standing(templates, bootstrap_servers, prefix, home) as where:
        yield await market_in(where)


def _before(home: Path) -> Revision:
    try:
        commit = clone.git("describe", "--tags", "--abbrev=0", "HEAD^").decode().strip()
    except CloneError:
        commit = clone.commit_of(BEFORE)
    return unpacked(commit, home, print)


class Rollout:
    """Replaces processes of a stack one by one, each version with the variables that it knows."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._full: dict[str, dict[str, str]] = {}

    async def to(self, name: str, revision: Revision) -> None:
        """Have one process leave, and start it again from this code."""
        await self._stack.stop_process(name)
        part = self._stack._parts[name]
        assert isinstance(part, HttpProcess)
        child, (service, kind, *_) = part._child, name.split(".")
        full = self._full.setdefault(name, child.environment)
        known = await _variables(revision, full, service, kind)
        child.environment = {each: value for each, value in full.items() if each in known or not each.startswith(PREFIX)}
        child.environment["PYTHONPATH"] = str(revision.folder)
        child.command[child.command.index("-P") - 1] = str(revision.python)
        await self._stack.start_process(name)
        if kind == "api":
            await asyncio.sleep(READY_SECONDS)


async def _variables(revision: Revision, environment: dict[str, str], service: str, kind: str) -> set[str]:
    """What a process of this version reads, by its own word."""
    bare = {name: value for name, value in environment.items() if not name.startswith(PREFIX)}
    asking = await asyncio.create_subprocess_exec(
        *(str(revision.python), "-P", "-m", "deploy.cli", "serve", service, kind, "--print-environment"),
        env=bare | {"PYTHONPATH": str(revision.folder)},
        stdout=subprocess.PIPE,
    )
    told, _ = await asking.communicate()
    assert asking.returncode == 0
    return set(re.findall(rf"{PREFIX}\w+", told.decode()))


async def test_versions_follow_each_other_process_by_process_and_whoever_asks_once_is_answered(
    market: Market, tmp_path: Path
) -> None:
    before, here = _before(tmp_path), this_revision()
    await market.stack.scale(TWICE)
    rollout = Rollout(market.stack)
    for name in processes(SERVICES, TWICE):
        await rollout.to(name, before)
    api = Blunt(market)
    custom = Custom(market, shop_of(market, api), "rolling")
    async with custom.comes():
        await custom.goes_on()
        begun = time.monotonic()
        await asyncio.sleep(QUIET_SECONDS)
        rolled = time.monotonic()
        for revision in (here, before):
            for name in processes(SERVICES, TWICE):
                await rollout.to(name, revision)
            await custom.goes_on()
        over = time.monotonic()
    await custom.was_served_once_each()
    assert api.lost == [], "who asks once has been answered"
    quiet, rolling = api.p99(begun, rolled), api.p99(rolled, over)
    print(f"p99 of all requests: {quiet * 1000:.0f} ms, and {rolling * 1000:.0f} ms while they rolled, x {rolling / quiet:.2f}")
    print(f"{len(custom.checkouts)} purchases while {before.commit[:12]} and {here.commit[:12]} followed each other")
