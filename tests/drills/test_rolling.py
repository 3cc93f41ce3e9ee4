"""The version before and this one, side by side while people buy: forth on the schema of this one, and back again."""

import asyncio
import sys
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


async def _replaced(stack: Stack, name: str, revision: Revision) -> None:
    """Have one process leave, and start it again from this code."""
    await stack.stop_process(name)
    part = stack._parts[name]
    assert isinstance(part, HttpProcess)
    child, python = part._child, child_python(part)
    child.command = [str(revision.python) if word == python else word for word in child.command]
    child.environment["PYTHONPATH"] = str(revision.folder)
    await stack.start_process(name)
    if ".api" in name:
        await asyncio.sleep(READY_SECONDS)


def child_python(part: HttpProcess) -> str:
    """Which interpreter a process is run by: the word before `-P`."""
    command = part._child.command
    return command[command.index("-P") - 1]


async def test_versions_follow_each_other_process_by_process_and_whoever_asks_once_is_answered(
    market: Market, tmp_path: Path
) -> None:
    before, here = _before(tmp_path), this_revision()
    assert sys.executable == str(here.python)
    await market.stack.scale(TWICE)
    for name in processes(SERVICES, TWICE):
        await _replaced(market.stack, name, before)
    api = Blunt(market)
    custom = Custom(market, shop_of(market, api), "rolling")
    async with custom.comes():
        await custom.goes_on()
        for revision in (here, before):
            for name in processes(SERVICES, TWICE):
                await _replaced(market.stack, name, revision)
            await custom.goes_on()
    await custom.was_served_once_each()
    assert api.lost == [], "who asks once has been answered"
    print(f"{len(custom.checkouts)} purchases while {before.commit[:12]} and {here.commit[:12]} followed each other")
