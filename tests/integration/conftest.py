"""Real databases for these tests: one a service that many tests share, each with tenants of its own, and empty ones."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.integration.browsing import browser
from tests.shared.fakes import started
from tests.shared.places import Place, Places, Templates

__all__ = ["browser"]


def _copies(templates: Templates, what: str) -> Iterator[Places]:
    made: dict[str, Place] = {}
    prefix = f"{what}_{uuid4().hex[:8]}_"

    def copy(service: str) -> Place:
        if service not in made:
            made[service] = templates.copy(service, prefix)
        return made[service]

    yield copy
    templates.drop(list(made.values()))


@pytest.fixture(scope="session")
def shared(templates: Templates) -> Iterator[Places]:
    """A service's database that other tests use too: keep to tenants of your own."""
    yield from _copies(templates, "shared")


@pytest.fixture
def empty(templates: Templates) -> Iterator[Places]:
    """A service's database for this test alone."""
    yield from _copies(templates, "empty")


@pytest.fixture
def elsewhere(templates: Templates) -> Iterator[Places]:
    """The same in another cell."""
    yield from _copies(templates, "elsewhere")


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the fake Stripe answers, in a process of its own."""
    process = started(tmp_path_factory.mktemp("stripe") / "journal")
    yield process.url
    process.kill()
