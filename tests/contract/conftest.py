"""The fake Stripe, running."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.shared.fakes import Account, Process, account_at, started


@pytest.fixture
def start() -> Iterator[Callable[[Path], Process]]:
    """Start fakes that a test may kill, and leave none running."""
    children: list[Process] = []

    def start_one(state: Path) -> Process:
        children.append(started(state))
        return children[-1]

    yield start_one
    for child in children:
        child.kill()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One fake for the module; each test has an account of its own, which sees nothing of the others."""
    running = started(tmp_path_factory.mktemp("stripe") / "journal")
    yield running
    running.kill()


@pytest.fixture
async def account(process: Process) -> AsyncIterator[Account]:
    """Open a fresh account, and leave no fault in force."""
    async with account_at(process.url) as opened:
        yield opened
        await opened.faults()
