"""What every test may ask for: real servers, and databases and topics of its own on them."""

import os
import uuid
from collections.abc import Callable, Iterator

import pytest
import structlog

from tests.shared.places import Templates

# The default draws every local variable of every frame into a traceback, and a megabyte of payload takes it half a minute.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="the long form of the proofs that have one")
    parser.addoption("--cluster", action="store_true", help="the proofs on a real API server of Kubernetes")
    parser.addoption("--crash-points", action="store_true", help="die at every step of a purchase, not at a sample of them")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is proven on demand alone, unless it is asked for."""
    for item in items:
        for demand in ("long", "cluster"):
            marker = item.get_closest_marker(demand)
            if marker is not None and not config.getoption(f"--{demand}"):
                item.add_marker(pytest.mark.skip(f"proven with --{demand} alone: {marker.args[0]}"))


@pytest.fixture(scope="session")
def admin_url() -> str:
    """A PostgreSQL administrator's address."""
    return _server("CARTWRIGHT_POSTGRES_ADMIN_URL", "row-level security, exactly-once effects and everything else on PostgreSQL")


@pytest.fixture(scope="session")
def bootstrap_servers() -> str:
    """A Kafka cluster's address."""
    return _server("CARTWRIGHT_KAFKA_BOOTSTRAP_SERVERS", "order, exactly-once effects and everything else on Kafka")


@pytest.fixture(scope="session")
def fresh_prefix() -> Callable[[str], str]:
    """Makes names that no other test uses, for databases and topics."""
    return lambda what: f"{what}_{uuid.uuid4().hex[:8]}_"


@pytest.fixture(scope="session")
def templates(admin_url: str, fresh_prefix: Callable[[str], str]) -> Iterator[Templates]:
    templates = Templates(admin_url, fresh_prefix("template"))
    yield templates
    templates.close()


def _server(variable: str, unproven: str) -> str:
    address = os.environ.get(variable)
    if not address:
        pytest.skip(f"not proven: {unproven} ({variable} is not set; `./cartwright test` starts the servers)")
    return address
