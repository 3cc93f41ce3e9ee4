"""What each process may load: start-up is measured in imports, and eight processes start on two cores."""

import subprocess
import sys

import pytest

HEAVY = (
    "aiohttp",
    "aiokafka",
    "alembic",
    "asyncpg",
    "fastapi",
    "faststream",
    "pydantic",
    "sqlalchemy",
    "starlette",
    "stripe",
    "uvicorn",
)
SERVICES = ("identity", "cart", "checkout", "payments")


def _loaded(code: str) -> set[str]:
    """The heavy packages among the modules that a new process has loaded after this code."""
    script = f"import sys\n{code}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n")[-2].split())


def test_help_loads_nothing_heavy() -> None:
    assert (
        _loaded("from deploy.cli.main import main\nsys.argv = ['cartwright', '--help']\ntry: main()\nexcept SystemExit: pass")
        == set()
    )


@pytest.mark.parametrize("service", SERVICES)
def test_an_api_process_loads_no_faststream_no_alembic_and_no_stripe(service: str) -> None:
    loaded = _loaded(f"import services.{service}.app, services.{service}.api, libs.common.http.api")
    assert "fastapi" in loaded
    assert not loaded & {"faststream", "alembic", "stripe", "aiohttp"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_worker_process_loads_no_fastapi_no_alembic_and_stripe_only_to_pay(service: str) -> None:
    jobs = "import services.payments.jobs, services.payments.gateway" if service == "payments" else ""
    loaded = _loaded(f"import services.{service}.app, libs.common.messaging.worker\n{jobs}")
    assert "faststream" in loaded
    assert not loaded & {"fastapi", "alembic"}
    assert ("stripe" in loaded) is (service == "payments")
