"""For the proofs of payments: a database and a fake Stripe that a module has for itself, and a till at both."""

from collections.abc import AsyncIterator, Callable, Iterator
from uuid import uuid4

import pytest

from tests.shared.fakes import Process, started
from tests.shared.places import Place, Templates
from tests.shared.till import HASTY_SECONDS, Till, till_at
from tests.shared.toy import Toy


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The fake Stripe, in a process of its own."""
    process = started(tmp_path_factory.mktemp("stripe") / "journal")
    yield process
    process.kill()


@pytest.fixture(scope="module")
def place(templates: Templates) -> Iterator[Place]:
    """A payments database in which nobody else's payments fall due."""
    place = templates.copy("payments", f"faults_{uuid4().hex[:8]}_")
    yield place
    templates.drop([place])


@pytest.fixture
async def hasty_till(place: Place, provider: Process) -> AsyncIterator[Till]:
    """One that gives a call up soon, where many hang."""
    async with till_at(place, provider.url, call_seconds=HASTY_SECONDS) as till:
        yield till


@pytest.fixture
async def till(place: Place, provider: Process) -> AsyncIterator[Till]:
    async with till_at(place, provider.url) as till:
        yield till


@pytest.fixture
def make_toy(admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str]) -> Callable[[], Toy]:
    """Makes toys of a database and a topic of their own."""
    return lambda: Toy(admin_url, bootstrap_servers, fresh_prefix("relay"))
